"""PNG, TIFF and other pictures as images and as masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.data.arrays import DAMAGED
from qcompile.data.intensity import gives_floats, windowed
from qcompile.data.item import Item
from qcompile.data_options import Window
from qcompile.errors import DataError
from qcompile.types import Array, Shape

LOSSY_SUFFIXES = (".jpg", ".jpeg")
PICTURE_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", *LOSSY_SUFFIXES)
_CONVERTED_MODES = {"1": "L", "P": "RGB", "LA": "L", "CMYK": "RGB", "YCbCr": "RGB", "PA": "RGB"}
_PLAIN_MODES = {"L": 1, "RGB": 3, "RGBA": 4}
_DEEP_MODES = {
    "I;16": np.uint16,
    "I;16L": np.uint16,
    "I;16B": np.uint16,
    "I": np.int32,
    "F": np.float32,
}


def picture_items(path: Path, channels: int, window: Window | None) -> list[Item]:
    """The pages of one picture as images: [H, W], or [H, W, C] in colour.

    Args:
        path: of the file.
        channels: of the network's input; colour becomes grey for 1, alpha is dropped for 3.
        window: intensities to pixels; each page has percentiles of its own.

    Raises:
        DataError: the file is damaged, too large, or has more than 8 bits and there is no window.
    """
    items = []
    for page, mode, size, name in _pages(path):
        target = _target_mode(mode, channels)
        if target is None and mode not in _DEEP_MODES:
            raise DataError(f"{name}: has pixels of mode {mode}; convert it to 8 bits")
        element = np.dtype(_DEEP_MODES[mode] if target is None else np.uint8)
        planes = 1 if target is None else _PLAIN_MODES[target]
        shape = size if planes == 1 else (*size, planes)
        is_float = gives_floats(element, window, name)

        def load(page: int = page, target: str | None = target, name: str = name) -> Array:
            return windowed(_read(path, page, target), window, name)

        items.append(Item(name, path.stem, shape, is_float, load))
    return items


def picture_masks(path: Path) -> list[Item]:
    """The pages of one picture as masks: palette indices, or the grey values; [H, W].

    Raises:
        DataError: the file is damaged, or compressed with loss.
    """
    if path.suffix.lower() in LOSSY_SUFFIXES:
        raise DataError(
            f"{path.name}: JPEG changes the values of a mask; save masks as PNG or TIFF"
        )
    # A GIF has greys in a palette, too; elsewhere a palette gives classes their colours.
    target = "RGB" if path.suffix.lower() == ".gif" else None
    items = []
    for page, _, size, name in _pages(path):

        def load(page: int = page, name: str = name) -> Array:
            return _mask(_read(path, page, target), name)

        items.append(Item(name, path.stem, size, False, load))
    return items


def _pages(path: Path) -> Iterator[tuple[int, str, Shape, str]]:
    """Number, mode, (height, width) and name of each page, from the headers."""
    with _Opened(path) as image:
        count = int(getattr(image, "n_frames", 1))
        for page in range(count if path.suffix.lower() in (".tif", ".tiff") else 1):
            if page:
                image.seek(page)
            name = path.name if count == 1 else f"{path.name} page {page}"
            yield page, str(image.mode), (int(image.height), int(image.width)), name


def _read(path: Path, page: int, target: str | None) -> Array:
    with _Opened(path) as image:
        if page:
            image.seek(page)
        converted = image if target in (None, image.mode) else image.convert(target)
        return np.array(converted)


class _Opened:
    """A pillow image whose damage is a `DataError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Any:
        from PIL import Image

        self._damaged = (*DAMAGED, Image.DecompressionBombError)
        try:
            self._image: Any = Image.open(self._path)
        except self._damaged as error:
            raise self._error(error) from None
        return self._image

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._image.close()
        if isinstance(error, self._damaged):
            raise self._error(error) from None

    def _error(self, error: BaseException) -> DataError:
        return DataError(f"{self._path.name}: cannot be read as an image ({error})")


def _target_mode(mode: str, channels: int) -> str | None:
    """The mode of 8 bits that a picture is converted to; None if it has more."""
    plain = _CONVERTED_MODES.get(mode, mode)
    if plain not in _PLAIN_MODES:
        return None
    wanted = {1: "L", 3: "RGB"}.get(channels)
    return plain if wanted is None else wanted


def _mask(values: Array, name: str) -> Array:
    if values.ndim == 2:
        return values
    colours = values[..., : 3 if values.shape[-1] >= 3 else 1]
    if (colours != colours[..., :1]).any():
        raise DataError(
            f"{name}: is a mask in colours; save class indices, as grey values or in a palette"
        )
    return np.ascontiguousarray(colours[..., 0])
