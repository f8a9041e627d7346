"""Concatenation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Concat
from qcompile.types import Array, TensorType


def run(op: Concat, inputs: Sequence[Array], output: TensorType) -> Array:
    """The inputs side by side: one quantization for all, signedness may differ."""
    return np.concatenate(inputs, axis=op.axis, dtype=output.element.storage, casting="unsafe")
