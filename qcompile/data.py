"""Calibration and evaluation data: files become network inputs of exactly the right shape.

Everything here keeps the *raw* elements (uint8 pixels or float32); `feeds.py` turns them into what
the float graph and the compiled graph take.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from qcompile.boundary import channel_axis, channels
from qcompile.data_files import ArrayFile, open_arrays, read_folder
from qcompile.errors import DataError
from qcompile.feeds import Feed
from qcompile.graph import Graph
from qcompile.types import Array, Shape

CALIBRATION_KEYS = ("train_x", "x", "images", "val_x")
EVALUATION_KEYS = (("val_x", "val_y"), ("x", "y"), ("images", "labels"))
GENERATED_IMAGES = 4
T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationData:
    """Images with labels.

    Attributes:
        images: for each image, input name -> raw array in the model's axis order, without batch;
            its spatial size is a multiple of the network's.
        labels: for each image its class indices, int64 [*spatial].
    """

    images: tuple[Feed, ...]
    labels: tuple[Array, ...]


def fit_images(images: Array, shape: Shape, label: str) -> Array:
    """A stack of images [N, ...] as [N, ...] in the network's axis order (a view).

    Args:
        images: [N, H, W], [N, H, W, C] or [N, C, H, W]; uint8 or float (likewise for other ranks).
        shape: of the network's input, [1, ...].
        label: names the array in messages.

    Raises:
        DataError: no axis order fits, two do, or the elements are of a wrong type.
    """
    check_elements(images, label)
    if images.ndim < 1 or images.shape[0] == 0:
        raise DataError(f"{label}: holds no images")
    axis = channel_axis(shape)
    count = shape[axis]
    candidates: list[Array] = []
    if images.shape[1:] == shape[1:]:
        return images
    if images.ndim == len(shape) - 1 and count == 1:
        candidates.append(np.expand_dims(images, axis))
    elif images.ndim == len(shape):
        candidates.append(images)
        if len(shape) > 3:
            other = images.ndim - 1 if axis == 1 else 1
            candidates.append(np.moveaxis(images, other, axis))
    fitting = [item for item in candidates if _fits(item.shape[1:], shape)]
    if not fitting:
        raise DataError(
            f"{label}: shape {list(images.shape)} does not fit the network's input {list(shape)}; "
            f"give [N, H, W], [N, H, W, C] or [N, C, H, W] with {count} channel(s) and sizes that "
            f"are multiples of the network's, or choose --input-shape"
        )
    if len(fitting) == 2:
        raise DataError(
            f"{label}: shape {list(images.shape)} fits the network's input {list(shape)} with "
            f"channels first and with channels last; save it in the network's order and size"
        )
    return fitting[0]


def _fits(image: Shape, shape: Shape) -> bool:
    axis = channel_axis(shape) - 1
    return all(
        size == tile if index == axis else size % tile == 0 and size > 0
        for index, (size, tile) in enumerate(zip(image, shape[1:], strict=True))
    )


def check_elements(images: Array, label: str) -> None:
    """
    Raises:
        DataError: the elements are neither uint8 nor floats.
    """
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise DataError(
            f"{label}: has elements of type {images.dtype}; give uint8 pixels, or floats that are "
            f"the network's input as it is"
        )


def finite(image: Array, label: str) -> Array:
    """A raw image as uint8, or as float32 without NaN and infinities.

    Raises:
        DataError: it has some.
    """
    if image.dtype == np.uint8:
        return image
    result = image.astype(np.float32)
    if not np.isfinite(result).all():
        raise DataError(f"{label}: has NaN or infinite elements; clean the data")
    return result


def tiles(image: Array, shape: Shape) -> list[Array]:
    """Cuts an image [...] into the network's inputs [1, ...], row by row."""
    parts = [range(0, size, tile) for size, tile in zip(image.shape, shape[1:], strict=True)]
    return [
        image[tuple(slice(at, at + tile) for at, tile in zip(corner, shape[1:], strict=True))][None]
        for corner in itertools.product(*parts)
    ]


def shape_from_images(images: Array, declared: Sequence[int | None]) -> Shape | None:
    """The shape that images give to a network input with dynamic axes.

    Args:
        images: [N, H, W], [N, H, W, C] or [N, C, H, W].
        declared: the sizes of the model, None where dynamic; the batch first.

    Returns:
        A static shape with batch 1, or None if the images do not decide it.
    """
    rank = len(declared)
    found: set[Shape] = set()
    stacks = [images]
    if images.ndim == rank - 1:
        stacks = [np.expand_dims(images, 1), images[..., None]]
    elif images.ndim == rank and rank > 3:
        stacks.append(np.moveaxis(images, -1, 1))
    for stack in stacks:
        sizes = stack.shape[1:]
        if len(sizes) == rank - 1 and all(
            want is None or want == size for want, size in zip(declared[1:], sizes, strict=True)
        ):
            found.add((1, *sizes))
    if len(found) > 1:
        # Fewer channels than rows: the order in which the channel axis comes out the smallest.
        found = {shape for shape in found if shape[1] == min(shape[1:])} or found
    return found.pop() if len(found) == 1 else None


def calibration_source(text: str) -> tuple[Path, str]:
    """'FILE.npz:key' as (path, key); the key is '' where none is given."""
    path = Path(text)
    if path.exists() or ":" not in text:
        return path, ""
    name, _, key = text.rpartition(":")
    return (Path(name), key) if Path(name).exists() else (path, "")


def read_calibration(text: str, inputs: Mapping[str, int]) -> dict[str, Array | list[Array]]:
    """The raw images of `--calib` for each network input, in the file's own axis order.

    Args:
        text: a folder, `.npy`, `.npz` or `.npz:key`.
        inputs: names of the network's inputs with their channels.

    Raises:
        DataError: the source cannot be read, or lacks an input.
    """
    path, key = calibration_source(text)
    names = list(inputs)
    if path.is_dir():
        if len(names) > 1:
            raise DataError(
                f"{path}: a folder of images feeds one input, this network has {len(names)}; "
                f"give a .npz with one array for each input name"
            )
        return {names[0]: list(read_folder(path, inputs[names[0]]))}
    source = open_arrays(path)
    if len(names) == 1:
        chosen = _calibration_key(source, names[0], key)
        return {names[0]: source.read(chosen)}
    return {name: source.read(_input_key(source, name)) for name in names}


def _calibration_key(source: ArrayFile, name: str, key: str) -> str:
    if key or source.keys == ("",):
        return key
    for candidate in (name, f"in/{name}", *CALIBRATION_KEYS):
        if candidate in source.keys:
            return candidate
    return source.keys[0]


def _input_key(source: ArrayFile, name: str) -> str:
    for candidate in (name, f"in/{name}"):
        if candidate in source.keys:
            return candidate
    raise DataError(
        f"{source.path.name}: has no array for input '{name}'; networks with several inputs need "
        f"one array for each, by name"
    )


def calibration_feeds(text: str, shapes: Mapping[str, Shape], limit: int) -> list[Feed]:
    """At most `limit` raw network inputs from `--calib`, evenly spread over the data.

    Images larger than the network's input give several inputs, one for each tile.

    Raises:
        DataError: the data do not fit the network.
    """
    raw = read_calibration(text, {name: channels(shape) for name, shape in shapes.items()})
    label = Path(calibration_source(text)[0]).name
    return feeds_from(raw, shapes, limit, label)


def feeds_from(
    raw: Mapping[str, Array | list[Array]], shapes: Mapping[str, Shape], limit: int, label: str
) -> list[Feed]:
    """As `calibration_feeds`, from arrays in memory."""
    fitted = {name: _fitted(raw[name], shape, label) for name, shape in shapes.items()}
    counts = {name: len(images) for name, images in fitted.items()}
    if len(set(counts.values())) != 1:
        raise DataError(f"{label}: the inputs have different numbers of images: {counts}")
    first = next(iter(shapes))
    places = [
        (index, tile)
        for index, image in enumerate(fitted[first])
        for tile in range(_tile_count(image.shape, shapes[first]))
    ]
    result: list[Feed] = []
    for index, tile in evenly(places, limit):
        feed = {}
        for name, shape in shapes.items():
            parts = tiles(fitted[name][index], shape)
            if tile >= len(parts):
                raise DataError(f"{label}: the inputs of image {index} differ in size")
            feed[name] = finite(parts[tile], f"{label}, image {index}")
        result.append(feed)
    return result


def _fitted(raw: Array | list[Array], shape: Shape, label: str) -> list[Array]:
    if isinstance(raw, list):
        return [fit_images(image[None], shape, label)[0] for image in raw]
    return list(fit_images(raw, shape, label))


def _tile_count(image: Shape, shape: Shape) -> int:
    count = 1
    for size, tile in zip(image, shape[1:], strict=True):
        count *= size // tile
    return count


def evenly(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` of the items, from the middles of equal stretches: always the same ones."""
    if len(items) <= limit:
        return list(items)
    return [items[(2 * index + 1) * len(items) // (2 * limit)] for index in range(limit)]


def generated_feeds(
    shapes: Mapping[str, Shape], seed: int, count: int = GENERATED_IMAGES
) -> list[Feed]:
    """Inputs made up where there are no calibration data: blocks of random grey with noise, uint8.

    Neighbouring pixels resemble each other as in real images, so that smoothing layers see more
    than the mean; no promise of accuracy follows from them.
    """
    generator = np.random.default_rng(seed)
    result: list[Feed] = []
    for _ in range(count):
        feed = {}
        for name, shape in shapes.items():
            axis = channel_axis(shape)
            coarse = [size if i == axis else -(-size // 16) for i, size in enumerate(shape)]
            pixels = generator.integers(0, 256, coarse, dtype=np.int16)
            for i, size in enumerate(shape):
                if i not in (0, axis):
                    pixels = pixels.repeat(16, axis=i).take(range(size), axis=i)
            noise = generator.integers(-24, 25, shape, dtype=np.int16)
            feed[name] = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        result.append(feed)
    return result


def random_feeds(graph: Graph, seed: int, count: int = 2) -> list[Feed]:
    """Inputs without any structure for the compiled graph: every pixel value, floats of -4 to 4."""
    generator = np.random.default_rng((seed, 1))
    return [
        {
            name: generator.uniform(-4, 4, graph.types[name].shape).astype(np.float32)
            if graph.types[name].is_float
            else generator.integers(0, 256, graph.types[name].shape).astype(np.uint8)
            for name in graph.inputs
        }
        for _ in range(count)
    ]


def load_evaluation(
    text: str, shapes: Mapping[str, Shape], keys: tuple[str, str] | None
) -> EvaluationData:
    """Images and labels of `--data`.

    Args:
        text: a `.npz` file.
        shapes: of the network's inputs.
        keys: of images and labels; None tries `EVALUATION_KEYS`. With several inputs the images
            come from the arrays named after the inputs.

    Raises:
        DataError: arrays are missing or do not fit the network or each other.
    """
    source = open_arrays(Path(text))
    image_key, label_key = keys if keys is not None else _evaluation_keys(source, shapes)
    fitted: dict[str, Array] = {}
    for name, shape in shapes.items():
        key = image_key if len(shapes) == 1 else _input_key(source, name)
        fitted[name] = fit_images(source.read(key), shape, f"{source.path.name}:{key}")
    labels = _class_indices(source.read(label_key), f"{source.path.name}:{label_key}")
    counts = {name: len(images) for name, images in fitted.items()}
    if any(count != len(labels) for count in counts.values()):
        raise DataError(
            f"{source.path.name}: has {len(labels)} labels for images {counts}; they must pair up"
        )
    images = tuple(
        {name: finite(stack[index], f"{name} {index}") for name, stack in fitted.items()}
        for index in range(len(labels))
    )
    return EvaluationData(images, tuple(labels))


def _evaluation_keys(source: ArrayFile, shapes: Mapping[str, Shape]) -> tuple[str, str]:
    for pair in EVALUATION_KEYS:
        if pair[1] in source.keys and (len(shapes) > 1 or pair[0] in source.keys):
            return pair
    raise DataError(
        f"{source.path.name}: has none of the pairs "
        f"{', '.join('/'.join(pair) for pair in EVALUATION_KEYS)}; choose with --data-keys"
    )


def _class_indices(labels: Array, label: str) -> Array:
    """Labels as int64 [N, *spatial]; a channel axis of size 1 is dropped."""
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all() or not (labels == np.floor(labels)).all():
            raise DataError(f"{label}: has fractional labels; give class indices")
    elif labels.dtype.kind not in "biu":
        raise DataError(f"{label}: has elements of type {labels.dtype}; give class indices")
    if labels.ndim >= 4 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim >= 4 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    result = labels.astype(np.int64)
    if result.size and result.min() < 0:
        raise DataError(f"{label}: has negative labels ({result.min()}); class indices start at 0")
    return result
