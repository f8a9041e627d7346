"""`--calib`: raw inputs to find ranges on, read only as far as they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from qcompile.boundary import channels
from qcompile.data.array_images import array_items, input_key
from qcompile.data.arrays import ArrayFile, open_arrays
from qcompile.data.dicom import is_dicom
from qcompile.data.fitting import PLAIN, finite, fit_image, fitted_shape
from qcompile.data.folders import ReadingOptions, find_sources, image_items
from qcompile.data.item import Item
from qcompile.data.nifti import is_nifti
from qcompile.data.pictures import PICTURE_SUFFIXES
from qcompile.data.tiling import Tiling, cut_tile, grid_of
from qcompile.errors import DataError
from qcompile.feeds import Feed
from qcompile.types import Shape

CALIBRATION_KEYS = ("train_x", "x", "images", "val_x")
T = TypeVar("T")


def calibration_source(text: str) -> tuple[Path, str]:
    """'FILE.npz:key' as (path, key); the key is '' where none is given."""
    path = Path(text)
    if path.exists() or ":" not in text:
        return path, ""
    name, _, key = text.rpartition(":")
    return (Path(name), key) if Path(name).exists() else (path, "")


def read_calibration(
    text: str, inputs: Mapping[str, int], options: ReadingOptions | None = None
) -> dict[str, list[Item]]:
    """The raw images of `--calib` for each network input, in the file's own axis order.

    Args:
        text: a folder, a picture, `.npy`, `.npz`, `.npz:key`, NIfTI or DICOM.
        inputs: names of the network's inputs with their channels.
        options: how files become images.

    Raises:
        DataError: the source cannot be read, or lacks an input.
    """
    options = options or ReadingOptions()
    path, key = calibration_source(text)
    names = list(inputs)
    if is_image_source(path):
        if len(names) > 1:
            raise DataError(
                f"{path}: images feed one input, this network has {len(names)}; "
                f"give a .npz with one array for each input name"
            )
        found = image_items(find_sources(path), inputs[names[0]], options)
        return {names[0]: [item for items in found for item in items]}
    source = open_arrays(path)
    keys = (
        {names[0]: _calibration_key(source, names[0], key)}
        if len(names) == 1
        else {name: input_key(source, name) for name in names}
    )
    return {
        name: array_items(source.read(key), f"{path.name}:{key}" if key else path.name, options)
        for name, key in keys.items()
    }


def is_image_source(path: Path) -> bool:
    """Whether these are files of images, and not of arrays."""
    return path.is_dir() or (
        path.is_file() and path.suffix.lower() not in (".npz", ".npy") and _is_image_file(path)
    )


def _is_image_file(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES or is_nifti(path) or is_dicom(path)


def _calibration_key(source: ArrayFile, name: str, key: str) -> str:
    if key or source.keys == ("",):
        return key
    for candidate in (name, f"in/{name}", *CALIBRATION_KEYS):
        if candidate in source.keys:
            return candidate
    return source.keys[0]


def calibration_feeds(
    text: str,
    shapes: Mapping[str, Shape],
    limit: int,
    options: ReadingOptions | None = None,
    tiling: Tiling = PLAIN,
) -> list[Feed]:
    """At most `limit` raw network inputs from `--calib`, evenly spread over the data.

    Images larger than the network's input give several inputs, one for each tile.

    Raises:
        DataError: the data do not fit the network.
    """
    raw = read_calibration(text, {name: channels(shape) for name, shape in shapes.items()}, options)
    return feeds_from(raw, shapes, limit, Path(calibration_source(text)[0]).name, tiling)


def feeds_from(
    raw: Mapping[str, Sequence[Item]],
    shapes: Mapping[str, Shape],
    limit: int,
    label: str,
    tiling: Tiling = PLAIN,
) -> list[Feed]:
    """As `calibration_feeds`, from images that are known already."""
    counts = {name: len(items) for name, items in raw.items()}
    if len(set(counts.values())) != 1:
        raise DataError(f"{label}: the inputs have different numbers of images: {counts}")
    first, shape = next(iter(shapes.items()))
    grids = [
        grid_of(fitted_shape(item.shape, shape, item.name, tiling), shape, tiling)
        for item in raw[first]
    ]
    places = [(index, tile) for index, grid in enumerate(grids) for tile in range(len(grid))]
    result: list[Feed] = []
    for index, tile in evenly(places, limit):
        feed = {}
        for name, shape in shapes.items():
            item = raw[name][index]
            image = fit_image(item.load(), shape, item.name, tiling)
            grid = grid_of(image.shape, shape, tiling)
            if tile >= len(grid):
                raise DataError(f"{label}: the inputs of image {index} differ in size")
            feed[name] = finite(cut_tile(image, shape, grid, tile), item.name)
        result.append(feed)
    return result


def evenly(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` of the items, from the middles of equal stretches: always the same ones."""
    if len(items) <= limit:
        return list(items)
    return [items[(2 * index + 1) * len(items) // (2 * limit)] for index in range(limit)]
