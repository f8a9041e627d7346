"""What the simulator knows of one operator: the functions that compute it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from qcompile.types import Array, TensorType

KernelFunction = Callable[[Any, Sequence[Array], TensorType], Array]
"""(op, inputs, type of the output) -> output. It never changes its inputs in place; the result may
share memory with them."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The two forms of an operator; None where the form does not exist.

    `float_` computes float32 outputs, `integer` integer outputs. Operators that only move or order
    elements have one function for both.
    """

    float_: KernelFunction | None
    integer: KernelFunction | None
