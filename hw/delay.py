"""Registers in a row."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Shape, Signal, Value


def delayed(m: Module, value: Any, cycles: int, name: str, *, reset: bool = False) -> Any:
    """`value` as it was `cycles` clock cycles ago.

    Args:
        name: of the registers; the k-th in the row is `<name>_<k>`, k from 1.
        reset: whether they return to 0 on reset; data that a valid bit guards need not.
    """
    current = Value.cast(value)
    shape = Shape.cast(current.shape())
    for cycle in range(1, cycles + 1):
        register = Signal(shape, name=f"{name}_{cycle}", reset_less=not reset)
        m.d.sync += register.eq(current)
        current = register
    return current
