"""The images that may be annotated, and the list of those that are."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qcompile.boundary import InputKind, channels
from qcompile.data import ReadingOptions, read_calibration
from qcompile.data.calibration import calibration_source, is_image_source
from qcompile.data.fitting import finite, fit_image, fitted_shape
from qcompile.data.item import Item
from qcompile.data.tiling import Grid, Tiling, cut_tile, grid_of
from qcompile.errors import DataError, UsageError
from qcompile.feeds import Feed, choose_input_kind
from qcompile.options import InputChoice
from qcompile.types import Array, Shape

INPUT = "image"
MAX_LIST_BYTES = 16 << 20


@dataclass(frozen=True)
class Pool:
    """
    Attributes:
        names: of the images: those of files (and their pages or slices), or indices of an array.
        items: the images, read when they are needed.
        kind: pixels or floats.
    """

    names: tuple[str, ...]
    items: tuple[Item, ...]
    kind: InputKind

    def image(self, index: int, shape: Shape, tiling: Tiling) -> Array:
        """One image in the axis order of a network input, without batch axis."""
        item = self.items[index]
        return finite(fit_image(item.load(), shape, item.name, tiling), item.name)

    def grids(self, shape: Shape, tiling: Tiling) -> list[Grid]:
        """How each image is cut for a network input of this shape.

        Raises:
            DataError: an image does not fit.
        """
        return [
            grid_of(fitted_shape(item.shape, shape, item.name, tiling), shape, tiling)
            for item in self.items
        ]

    def feeds(self, indices: Sequence[int], shape: Shape, tiling: Tiling) -> Iterator[Feed]:
        """The tiles of some images as network inputs, image by image."""
        for index in indices:
            image = self.image(index, shape, tiling)
            grid = grid_of(image.shape, shape, tiling)
            for tile in range(len(grid)):
                yield {INPUT: cut_tile(image, shape, grid, tile)}

    def index_of(self, name: str) -> int | None:
        """Of an image by its name, or by the name of its file without suffix; None without."""
        return self._places.get(name)

    @cached_property
    def _places(self) -> dict[str, int]:
        stems = [Path(name).stem for name in self.names]
        counts = Counter(stems)
        found = {stem: at for at, stem in enumerate(stems) if counts[stem] == 1}
        return found | {name: at for at, name in enumerate(self.names)}


def load_pool(text: str, shape: Shape, choice: InputChoice, reading: ReadingOptions) -> Pool:
    """The images of `--pool`: whatever `--calib` takes.

    Args:
        text: `.npz`, `.npz:KEY`, `.npy`, a folder or file of images.
        shape: of a network's input, for its channels.
        choice: `--input-kind`.
        reading: how files become images.

    Raises:
        DataError: images are missing, damaged, or have one name.
    """
    ((_, items),) = read_calibration(text, {INPUT: channels(shape)}, reading).items()
    kinds = {item.is_float for item in items}
    if len(kinds) > 1:
        raise DataError(
            f"--pool {text}: holds pixels of 8 bits as well as floats; give --window for all"
        )
    kind = choose_input_kind(choice, True in kinds, "--pool")
    if is_image_source(calibration_source(text)[0]):
        names = tuple(item.name for item in items)
    else:
        names = tuple(str(index) for index in range(len(items)))
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(f"--pool {text}: two images are called '{twice}'; rename one")
    return Pool(names, tuple(items), kind)


def read_annotated(path: Path, pool: Pool) -> list[int]:
    """The images of a list: `suggestions.csv` or `.json` of an earlier round, or a text file with
    one name in a line.

    Returns:
        Indices, each once, ascending.

    Raises:
        UsageError: the file is no such list, or names an image that the pool has not.
    """
    found = set()
    for name in _names(path):
        index = pool.index_of(name)
        if index is None:
            raise UsageError(
                f"--annotated {path}: '{name}' is not in the pool; leave annotated images in the "
                f"pool, they count as covered"
            )
        found.add(index)
    return sorted(found)


def _names(path: Path) -> list[str]:
    if not path.is_file():
        raise UsageError(f"--annotated {path}: no such file; give a list of images")
    if path.stat().st_size > MAX_LIST_BYTES:
        raise UsageError(f"--annotated {path}: larger than {MAX_LIST_BYTES} bytes")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"--annotated {path}: is no text; give one image name in a line") from None
    if path.suffix.lower() == ".json":
        return _names_in_json(text, path)
    if path.suffix.lower() == ".csv":
        rows = csv.DictReader(io.StringIO(text))
        if "image" not in (rows.fieldnames or ()):
            raise UsageError(f"--annotated {path}: has no column 'image'")
        return [row["image"] for row in rows if row["image"]]
    return [line.strip() for line in text.splitlines() if line.strip()]


def _names_in_json(text: str, path: Path) -> list[str]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"--annotated {path}: is no JSON") from None
    rows = table.get("suggested") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("image"), str) for row in rows
    ):
        raise UsageError(f"--annotated {path}: has no list 'suggested' of images")
    return [row["image"] for row in rows]
