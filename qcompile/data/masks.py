"""What the numbers in masks mean: from the values of a file to class indices."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from qcompile.data_options import MaskValues
from qcompile.errors import DataError
from qcompile.types import Array

MOST_VALUES = 1 << 16
SHOWN_VALUES = 8


def whole_numbers(mask: Array, label: str) -> Array:
    """A mask as integers from 0 on; an axis of one channel is dropped by `drop_channel`.

    Raises:
        DataError: there are fractions, negative numbers or other elements.
    """
    if mask.dtype.kind == "f":
        if not np.isfinite(mask).all() or not (mask == np.floor(mask)).all():
            raise DataError(f"{label}: has fractional labels; give class indices")
        mask = mask.astype(np.int64)
    elif mask.dtype.kind == "b":
        return mask.astype(np.uint8)
    elif mask.dtype.kind not in "iu":
        raise DataError(f"{label}: has elements of type {mask.dtype}; give class indices")
    if mask.dtype.kind == "i" and mask.size and mask.min() < 0:
        raise DataError(f"{label}: has negative labels ({mask.min()}); class indices start at 0")
    return mask


def values_in(mask: Array) -> set[int]:
    """The different numbers in a mask of integers."""
    if mask.dtype == np.uint8:
        return {int(value) for value in np.bincount(mask.ravel(), minlength=256).nonzero()[0]}
    return {int(value) for value in np.unique(mask)}


def class_rule(
    values: Collection[int], meaning: MaskValues, classes: int
) -> Callable[[Array], Array]:
    """What turns masks into class indices below `classes`.

    Args:
        values: every number that occurs in any mask.
        meaning: what the numbers are.
        classes: that the network tells apart, background included.

    Raises:
        DataError: there are classes that the network does not know.
    """
    if meaning in (MaskValues.BINARY, MaskValues.INSTANCES):
        return _foreground
    highest = max(values, default=0)
    if highest < classes:
        return _as_it_is
    if meaning is MaskValues.AUTO and classes == 2 and set(values) <= {0, 255}:
        return _foreground
    some = ", ".join(map(str, sorted(values)[:SHOWN_VALUES]))
    more = ", .." if len(values) > SHOWN_VALUES else ""
    raise DataError(
        f"the labels have class {highest} (values {some}{more}), the network's output tells "
        f"{classes} classes (0 to {classes - 1}) apart; give labels of its classes, or choose "
        f"--mask-values binary or instances"
    )


def _foreground(mask: Array) -> Array:
    return np.asarray(mask != 0, dtype=np.uint8)


def _as_it_is(mask: Array) -> Array:
    return mask
