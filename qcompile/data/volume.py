"""Volumes as slices: where the axes run to, and one item for each slice.

Directions are those of the patient: R/L right and left, A/P front and back, I/S feet and head. An
orientation of three letters says where slices, rows and columns of the items run to: 'SPL' is
axial as radiologists see it (rows to the back, columns to the patient's left).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from qcompile.data.intensity import Stretch, gives_floats, resolve_window
from qcompile.data.item import Item, LastRead
from qcompile.data_options import Window
from qcompile.errors import DataError
from qcompile.types import Array, Shape

_POSITIVE, _NEGATIVE = "RAS", "LPI"
SAME_PLACE = 0.5
"""Voxels by which a mask's corner may lie beside its image's."""


@dataclass(frozen=True)
class VolumeFile:
    """A volume whose header is known.

    Attributes:
        name: for messages.
        case: its name in reports and for matching images and masks.
        shape: stored axes: three of space, perhaps one of channels.
        affine: [4, 4], index along the stored axes -> millimetres to the right, front and head;
            None where the file does not say.
        element: of what is stored: integers of more than 8 bits need a window.
        slices: how it is cut unless asked otherwise: as `parse_slices` says.
        read: all intensities (slope and intercept applied), in the stored shape.
    """

    name: str
    case: str
    shape: Shape
    affine: Array | None
    element: np.dtype[np.generic]
    slices: int | str
    read: Callable[[], Array]


@dataclass(frozen=True, slots=True)
class Cut:
    """How a stored volume becomes [slices, rows, columns, ...]."""

    axes: tuple[int, int, int]
    backwards: tuple[bool, bool, bool]

    def apply(self, values: Array) -> Array:
        """A view of a stored array."""
        rest = range(3, values.ndim)
        turned = values.transpose(*self.axes, *rest)
        return turned[tuple(slice(None, None, -1 if back else None) for back in self.backwards)]

    def shape(self, stored: Shape) -> Shape:
        return (*(stored[axis] for axis in self.axes), *stored[3:])

    def affine(self, stored: Array, shape: Shape) -> Array:
        """The affine of the cut volume."""
        result = np.array(stored)
        for place, (axis, back) in enumerate(zip(self.axes, self.backwards, strict=True)):
            result[:, place] = -stored[:, axis] if back else stored[:, axis]
            if back:
                result[:, 3] += stored[:, axis] * (shape[axis] - 1)
        return result


def orientation(affine: Array, name: str) -> str:
    """Where the stored axes run to, each as one of six letters; oblique ones as the nearest.

    Raises:
        DataError: the affine has no three directions.
    """
    directions = affine[:3, :3]
    lengths = np.linalg.norm(directions, axis=0)
    if not np.isfinite(affine).all() or lengths.min() <= 0:
        raise DataError(f"{name}: its affine matrix has no three directions; mend its header")
    cosines = directions / lengths
    if abs(np.linalg.det(cosines)) < 1e-3:
        raise DataError(f"{name}: two axes of its affine matrix are parallel; mend its header")
    best = max(
        itertools.permutations(range(3)),
        key=lambda axes: sum(abs(cosines[axis, at]) for at, axis in enumerate(axes)),
    )
    return "".join(
        (_POSITIVE if cosines[axis, at] > 0 else _NEGATIVE)[axis] for at, axis in enumerate(best)
    )


def cut_for(file: VolumeFile, slices: int | str | None) -> Cut:
    """How `file` is cut.

    Raises:
        DataError: the plane is given by directions, which the file does not tell.
    """
    wanted = file.slices if slices is None else slices
    if isinstance(wanted, int):
        rows, columns = (axis for axis in range(3) if axis != wanted)
        return Cut((wanted, rows, columns), (False, False, False))
    if file.affine is None:
        raise DataError(
            f"{file.name}: does not say how it lies in the patient; choose a stored axis "
            f"(--slices 0, 1 or 2)"
        )
    stored = orientation(file.affine, file.name)
    pairs = [{positive, negative} for positive, negative in zip(_POSITIVE, _NEGATIVE, strict=True)]
    kinds = [next(at for at, pair in enumerate(pairs) if letter in pair) for letter in stored]
    axes, backwards = [], []
    for letter in wanted:
        kind = next(at for at, pair in enumerate(pairs) if letter in pair)
        axes.append(kinds.index(kind))
        backwards.append(stored[axes[-1]] != letter)
    return Cut((axes[0], axes[1], axes[2]), (backwards[0], backwards[1], backwards[2]))


def volume_items(
    file: VolumeFile,
    cut: Cut,
    window: Window | None,
    cache: LastRead[tuple[Array, Stretch | None]],
    *,
    whole: bool = False,
) -> list[Item]:
    """Slices of a volume as images, or the whole volume as one (for 3-D networks).

    Percentiles, mean and deviation are those of the whole volume.

    Raises:
        DataError: integers of more than 8 bits without a window.
    """
    is_float = gives_floats(file.element, window, file.name)
    shape = cut.shape(file.shape)

    def read() -> tuple[Array, Stretch | None]:
        values = file.read()
        stretch = None if window is None else resolve_window(window, values, file.name)
        return cut.apply(values), stretch

    def load(index: int | None) -> Array:
        values, stretch = cache.get(id(file), read)
        part = values if index is None else values[index]
        return np.ascontiguousarray(part if stretch is None else stretch.apply(part))

    if whole:
        return [Item(file.name, file.case, shape, is_float, partial(load, None))]
    return [
        Item(f"{file.name} slice {at}", file.case, shape[1:], is_float, partial(load, at))
        for at in range(shape[0])
    ]


def volume_masks(
    file: VolumeFile, cut: Cut, cache: LastRead[Array], *, whole: bool = False
) -> list[Item]:
    """Likewise the slices of a mask; whole numbers stored as floats are accepted later."""
    shape = cut.shape(file.shape)

    def load(index: int | None) -> Array:
        values = cache.get(id(file), lambda: cut.apply(file.read()))
        return np.ascontiguousarray(values if index is None else values[index])

    if len(shape) != 3:
        raise DataError(
            f"{file.name}: a mask has three axes, this one {len(shape)}; save one class index for "
            f"each voxel"
        )
    if whole:
        return [Item(file.name, file.case, shape, False, partial(load, None))]
    return [
        Item(f"{file.name} slice {at}", file.case, shape[1:], False, partial(load, at))
        for at in range(shape[0])
    ]


def check_same_place(image: VolumeFile, image_cut: Cut, mask: VolumeFile, mask_cut: Cut) -> None:
    """
    Raises:
        DataError: image and mask differ in size, or lie in different places of the patient.
    """
    shape, other = image_cut.shape(image.shape)[:3], mask_cut.shape(mask.shape)[:3]
    if shape != other:
        raise DataError(
            f"mask {mask.name}: has {_by(other)} slices, rows and columns where its image "
            f"{image.name} has {_by(shape)}; resample the mask to the image"
        )
    if image.affine is None or mask.affine is None:
        return
    first = image_cut.affine(image.affine, image.shape)
    second = mask_cut.affine(mask.affine, mask.shape)
    corners = np.array([(*at, 1) for at in itertools.product(*((0, size - 1) for size in shape))])
    apart = np.linalg.norm((corners @ (first - second).T)[:, :3], axis=1).max()
    voxel = np.linalg.norm(first[:3, :3], axis=0).min()
    if apart > SAME_PLACE * voxel:
        raise DataError(
            f"mask {mask.name}: lies up to {apart:.1f} mm beside its image {image.name}; resample "
            f"it, or correct the header of one of them"
        )


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape))
