"""Small things that all operators in torch share: shapes of vectors, borders, gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def spread(vector: Tensor, axis: int, rank: int) -> Tensor:
    """A vector of per-channel constants, shaped to broadcast along `axis` of a `rank`-D tensor; a
    single entry broadcasts everywhere."""
    if vector.numel() == 1:
        return vector.reshape((1,) * rank)
    shape = [1] * rank
    shape[axis] = vector.numel()
    return vector.reshape(shape)


def pad_spatial(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0) -> Tensor:
    """`x` [N, C, *spatial] with constant borders; negative ones crop."""
    if not any(begins) and not any(ends):
        return x
    borders = [size for pair in zip(begins, ends, strict=True) for size in reversed(pair)][::-1]
    return functional.pad(x, borders, value=value)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, value: Tensor, surrogate: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def straight_through(value: Tensor, surrogate: Tensor) -> Tensor:
    """`value`, to the last bit, with the gradient of `surrogate` (of the same shape)."""
    result: Tensor = _StraightThrough.apply(value.detach(), surrogate)  # type: ignore[no-untyped-call]
    return result


def round_half_up(steps: Tensor) -> Tensor:
    """floor(x + 1/2), the rounding of the contract; the gradient is that of x."""
    return straight_through(torch.floor(steps.detach() + 0.5), steps)
