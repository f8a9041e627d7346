"""The arrays of a `.npz` as images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from qcompile.data.arrays import ArrayFile
from qcompile.data.folders import ReadingOptions
from qcompile.data.intensity import gives_floats, windowed
from qcompile.data.item import Item
from qcompile.data_options import Window
from qcompile.errors import DataError
from qcompile.types import Array


def array_items(
    images: Array, label: str, options: ReadingOptions, cases: Sequence[str] | None = None
) -> list[Item]:
    """The images of an array [N, ...]; with percentiles, each has its own.

    Raises:
        DataError: there are none, or integers of more than 8 bits without a window.
    """
    if images.ndim < 1 or len(images) == 0:
        raise DataError(f"{label}: holds no images")
    if images.dtype.kind == "b":
        raise DataError(f"{label}: has elements of type bool; give uint8 pixels or floats")
    is_float = gives_floats(images.dtype, options.window, label)
    window = options.window
    return [
        Item(
            f"{label} image {at}",
            f"image {at}" if cases is None else cases[at],
            images.shape[1:],
            is_float,
            partial(_array_image, images, at, window, label),
        )
        for at in range(len(images))
    ]


def _array_image(images: Array, at: int, window: Window | None, label: str) -> Array:
    return windowed(images[at], window, f"{label} image {at}")


def input_key(source: ArrayFile, name: str) -> str:
    """The array of one of several inputs.

    Raises:
        DataError: there is none.
    """
    for candidate in (name, f"in/{name}"):
        if candidate in source.keys:
            return candidate
    raise DataError(
        f"{source.path.name}: has no array for input '{name}'; networks with several inputs need "
        f"one array for each, by name"
    )
