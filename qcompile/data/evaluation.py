"""Images with masks to measure Dice on, read one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from qcompile.boundary import channel_axis, channels
from qcompile.data.array_images import array_items, input_key
from qcompile.data.arrays import ArrayFile, open_arrays
from qcompile.data.fitting import PLAIN, finite, fit_image, fitted_shape
from qcompile.data.folders import (
    ReadingOptions,
    Source,
    check_pages,
    find_sources,
    image_items,
    mask_items,
    paired,
)
from qcompile.data.item import Item, Lazy
from qcompile.data.masks import MOST_VALUES, values_in, whole_numbers
from qcompile.data.tiling import Tiling
from qcompile.errors import DataError
from qcompile.feeds import Feed
from qcompile.types import Array, Shape

EVALUATION_KEYS = (
    ("val_x", "val_y", "val_case"),
    ("x", "y", "case"),
    ("images", "labels", "cases"),
)


@dataclass(frozen=True)
class EvaluationData:
    """Images with labels; both may be read each time they are asked for.

    Attributes:
        images: for each image, input name -> raw array in the model's axis order, without batch.
        labels: for each image its mask as the file has it, integers [*spatial].
        cases: for each image the volume or patient that it is part of; empty if nothing is said.
        is_float: whether images are floats; None: as the first image is.
        tiling: how images larger than the network's input are cut.
    """

    images: Sequence[Feed]
    labels: Sequence[Array]
    cases: tuple[str, ...] = ()
    is_float: bool | None = None
    tiling: Tiling = PLAIN

    @cached_property
    def survey(self) -> Survey:
        """What all masks together tell; reads every one of them, once.

        Raises:
            DataError: one cannot be read, or has other numbers than labels may have.
        """
        values: set[int] = set()
        sizes = []
        for label in self.labels:
            values |= values_in(label)
            sizes.append(label.shape)
            if len(values) > MOST_VALUES:
                raise DataError(
                    f"the masks have more than {MOST_VALUES} different values; give class indices"
                )
        return Survey(frozenset(values), tuple(sizes))

    @property
    def floats(self) -> bool:
        """Whether images are floats, else uint8 pixels."""
        if self.is_float is not None:
            return self.is_float
        return any(array.dtype.kind == "f" for array in self.images[0].values())


@dataclass(frozen=True)
class Survey:
    """The numbers that occur in masks, and the size of each mask."""

    values: frozenset[int]
    sizes: tuple[Shape, ...]


def load_evaluation(
    text: str,
    shapes: Mapping[str, Shape],
    keys: tuple[str, ...] | None,
    options: ReadingOptions | None = None,
    tiling: Tiling = PLAIN,
) -> EvaluationData:
    """Images and labels of `--data`.

    Args:
        text: a `.npz` file.
        shapes: of the network's inputs.
        keys: of images and labels, perhaps of case names; None tries `EVALUATION_KEYS`. With
            several inputs the images come from the arrays named after the inputs.
        options: how intensities become pixels.
        tiling: decides which sizes can be cut.

    Raises:
        DataError: arrays are missing or do not fit the network or each other.
    """
    source = open_arrays(Path(text))
    image_key, label_key, case_key = _evaluation_keys(source, shapes, keys)
    labels = drop_channel(source.read(label_key))
    name_of = f"{source.path.name}:{label_key}"
    if labels.dtype.kind == "f":
        whole_numbers(labels, name_of)
    cases = None if case_key is None else _cases(source, case_key, len(labels))
    items: dict[str, list[Item]] = {}
    for name in shapes:
        key = image_key if len(shapes) == 1 else input_key(source, name)
        array = source.read(key)
        items[name] = (
            array_items(array, f"{source.path.name}:{key}", options or ReadingOptions(), cases)
            if cases is None or len(array) == len(cases)
            else []
        )
    counts = {name: len(found) for name, found in items.items()}
    if any(count != len(labels) for count in counts.values()):
        raise DataError(
            f"{source.path.name}: has {len(labels)} labels for images {counts}; they must pair up"
        )
    masks = Lazy(len(labels), lambda at: whole_numbers(labels[at], f"{name_of} {at}"))
    return _data(items, shapes, masks, tiling, cases)


def load_pairs(
    images: str,
    masks: str,
    shapes: Mapping[str, Shape],
    options: ReadingOptions | None = None,
    tiling: Tiling = PLAIN,
) -> EvaluationData:
    """Images and masks of `--images` and `--masks`.

    Args:
        images: a file or folder of pictures, NIfTI or DICOM.
        masks: likewise; masks are found by the names of their images.
        shapes: of the network's single input.
        options: how files become images.
        tiling: decides which sizes can be cut.

    Raises:
        DataError: files are damaged, lack a mask, or do not fit the network or each other.
    """
    options = options or ReadingOptions()
    if len(shapes) != 1:
        raise DataError(
            f"--images: feeds one input, this network has {len(shapes)}; give a .npz with --data"
        )
    ((name, shape),) = shapes.items()
    pairs = _pairs(images, masks)
    parts = image_items([image for image, _ in pairs], channels(shape), options)
    belonging = mask_items(pairs, options)
    for (image, _), items, its_masks in zip(pairs, parts, belonging, strict=True):
        check_pages(image, items, its_masks)
    several = any(len(items) > 1 for items in parts)
    found = [item for items in parts for item in items]
    labels = [label for its_masks in belonging for label in its_masks]
    kinds = {item.is_float for item in found}
    if len(kinds) > 1:
        raise DataError(
            f"{images}: holds pixels of 8 bits as well as floats; give --window for all of them"
        )
    for item, label in zip(found, labels, strict=True):
        check_mask_size(fitted_shape(item.shape, shape, item.name, tiling), shape, item, label)
    cases = [item.case for item in found] if several else None
    lazy = Lazy(len(labels), lambda at: whole_numbers(labels[at].load(), labels[at].name))
    return _data({name: found}, shapes, lazy, tiling, cases)


def _pairs(images: str, masks: str) -> list[tuple[Source, Source]]:
    """Two single files belong together whatever their names."""
    found, belonging = find_sources(Path(images)), find_sources(Path(masks))
    if len(found) == len(belonging) == 1:
        return [(found[0], belonging[0])]
    return paired(found, belonging)


def check_mask_size(image: Shape, shape: Shape, item: Item, label: Item) -> None:
    """
    Raises:
        DataError: image and mask differ in size.
    """
    axis = channel_axis(shape) - 1
    sizes = image[:axis] + image[axis + 1 :]
    if label.shape != sizes:
        raise DataError(
            f"mask {label.name}: is {_by(label.shape)} where its image {item.name} is "
            f"{_by(sizes)}; give masks of the size of their images"
        )


def _data(
    items: Mapping[str, Sequence[Item]],
    shapes: Mapping[str, Shape],
    labels: Sequence[Array],
    tiling: Tiling,
    cases: Sequence[str] | None,
) -> EvaluationData:
    for name, shape in shapes.items():
        for item in items[name]:
            fitted_shape(item.shape, shape, item.name, tiling)

    def image(at: int) -> Feed:
        return {
            name: finite(
                fit_image(items[name][at].load(), shape, items[name][at].name, tiling),
                items[name][at].name,
            )
            for name, shape in shapes.items()
        }

    data = EvaluationData(
        Lazy(len(labels), image),
        labels,
        tuple(cases or ()),
        any(item.is_float for found in items.values() for item in found),
        tiling,
    )
    _ = data.survey  # bad masks are found before the work, not after it
    return data


def _evaluation_keys(
    source: ArrayFile, shapes: Mapping[str, Shape], keys: tuple[str, ...] | None
) -> tuple[str, str, str | None]:
    if keys is not None:
        return keys[0], keys[1], keys[2] if len(keys) > 2 else None
    for image, label, case in EVALUATION_KEYS:
        if label in source.keys and (len(shapes) > 1 or image in source.keys):
            return image, label, case if case in source.keys else None
    raise DataError(
        f"{source.path.name}: has none of the pairs "
        f"{', '.join('/'.join(keys[:2]) for keys in EVALUATION_KEYS)}; choose with --data-keys"
    )


def _cases(source: ArrayFile, key: str, count: int) -> list[str]:
    """Names or numbers of cases, one for each image."""
    values = source.read(key, "biufU")
    if values.shape != (count,):
        raise DataError(
            f"{source.path.name}:{key}: has shape {list(values.shape)}; give one case for each of "
            f"the {count} images"
        )
    return [str(value) for value in values.tolist()]


def drop_channel(labels: Array) -> Array:
    """Labels [N, *spatial] without a channel axis of size 1."""
    if labels.ndim >= 4 and labels.shape[1] == 1:
        return np.asarray(labels[:, 0])
    if labels.ndim >= 4 and labels.shape[-1] == 1:
        return np.asarray(labels[..., 0])
    return labels


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape))
