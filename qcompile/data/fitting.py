"""Raw images in the network's axis order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.boundary import channel_axis
from qcompile.data.tiling import Tiling
from qcompile.errors import DataError
from qcompile.types import Array, Shape

PLAIN = Tiling()


def fit_images(images: Array, shape: Shape, label: str, tiling: Tiling = PLAIN) -> Array:
    """A stack of images [N, ...] as [N, ...] in the network's axis order (a view).

    Args:
        images: [N, H, W], [N, H, W, C] or [N, C, H, W]; uint8 or float (likewise for other ranks).
        shape: of the network's input, [1, ...].
        label: names the array in messages.
        tiling: decides which sizes can be cut into the network's inputs.

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
    fitting = [item for item in candidates if _fits(item.shape[1:], shape, tiling)]
    if not fitting:
        sizes = "sizes that are multiples of the network's, or choose --input-shape or --tile-halo"
        raise DataError(
            f"{label}: shape {list(images.shape)} does not fit the network's input {list(shape)}; "
            f"give [N, H, W], [N, H, W, C] or [N, C, H, W] with {count} channel(s)"
            + (f" and {sizes}" if tiling.halo is None else "")
        )
    if len(fitting) == 2:
        raise DataError(
            f"{label}: shape {list(images.shape)} fits the network's input {list(shape)} with "
            f"channels first and with channels last; save it in the network's order and size"
        )
    return fitting[0]


def fit_image(image: Array, shape: Shape, label: str, tiling: Tiling = PLAIN) -> Array:
    """One image, without the batch axis."""
    return np.asarray(fit_images(image[None], shape, label, tiling)[0])


def fitted_shape(image: Shape, shape: Shape, label: str, tiling: Tiling = PLAIN) -> Shape:
    """The shape that `fit_image` would give to an image of shape `image`."""
    return fit_image(np.broadcast_to(np.uint8(0), image), shape, label, tiling).shape


def _fits(image: Shape, shape: Shape, tiling: Tiling) -> bool:
    axis = channel_axis(shape) - 1
    return all(
        size == tile if index == axis else tiling.cuts(size, tile)
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
            f"the network's input as it is, or say with --window how intensities become pixels"
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
