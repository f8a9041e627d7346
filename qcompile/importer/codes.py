"""Quantised values during import: which codes stand for a value, which grid a constant is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class CodeFormat:
    """How the codes of an ONNX tensor of integers map to real numbers:
    real = scale * (code - zero_point), low <= code <= high."""

    scale: float
    zero_point: int
    low: int
    high: int

    def real(self, code: int) -> float:
        return self.scale * (code - self.zero_point)

    def __str__(self) -> str:
        return f"scale {self.scale:g}, zero point {self.zero_point}"


def element_codes(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The least and the greatest code of an integer type."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def channel_scales(scales: Array, axis: int, groups: int = 1) -> tuple[float, ...] | None:
    """The scale of each output channel of weights; one entry if all are alike.

    Args:
        scales: the scale of every single weight.
        axis: where output channels lie (within a group, if there are several).
        groups: groups that lie one after another on axis 0, for weights whose `axis` is not 0.

    Returns:
        None if weights of one output channel have different scales.
    """
    split = np.stack(np.split(scales, groups, axis=0))
    rows = np.moveaxis(split, axis + 1, 1)
    if axis == 0:
        rows = rows.reshape(scales.shape[0], -1)
    else:
        rows = rows.reshape(groups * scales.shape[axis], -1)
    if (rows != rows[:, :1]).any():
        return None
    first = rows[:, 0].tolist()
    return tuple(first[:1] if len(set(first)) == 1 else first)
