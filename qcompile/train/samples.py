"""Images with masks to train on: random pieces of the network's size, as batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qcompile.boundary import InputKind, InputSpec, channel_axis
from qcompile.data.evaluation import EvaluationData
from qcompile.data.tiling import grid_of, spatial_shape
from qcompile.errors import DataError
from qcompile.train.augment import IGNORED, Augment
from qcompile.train.tensors import spread
from qcompile.types import Array, Shape


@dataclass(frozen=True)
class Batch:
    """`inputs`: what the float network takes, [N, ...] float32; `labels` [N, *spatial], int64."""

    inputs: dict[str, Tensor]
    labels: Tensor


@dataclass(frozen=True)
class Samples:
    """All images of a training set in memory.

    Attributes:
        images: for each, input name -> raw array in the network's axis order, channels first,
            without batch: uint8 or float32.
        labels: class indices [*spatial].
        shapes: of the network's inputs.
        specs: what pixels mean.
        pieces: how many pieces of the network's size each image counts for.
    """

    images: tuple[Mapping[str, Tensor], ...]
    labels: tuple[Tensor, ...]
    shapes: Mapping[str, Shape]
    specs: Mapping[str, InputSpec]
    pieces: tuple[int, ...]

    @staticmethod
    def of(
        data: EvaluationData,
        shapes: Mapping[str, Shape],
        specs: Mapping[str, InputSpec],
        rule: Callable[[Array], Array],
        device: torch.device | None = None,
    ) -> Samples:
        """Reads a whole set.

        Args:
            data: images and masks.
            shapes: of the network's inputs.
            specs: what pixels mean.
            rule: from masks to class indices.
            device: where images stay and are varied.

        Raises:
            DataError: a mask has not the size of its image.
        """
        images, labels, pieces = [], [], []
        first = next(iter(shapes))
        for index, (image, mask) in enumerate(zip(data.images, data.labels, strict=True)):
            grid = grid_of(image[first].shape, shapes[first], data.tiling)
            if mask.shape != grid.image:
                raise DataError(
                    f"label {index} has shape {list(mask.shape)} where its image has "
                    f"{list(grid.image)}; give one class index for each pixel"
                )
            images.append(
                {name: _first(raw, shapes[name]).to(device) for name, raw in image.items()}
            )
            labels.append(torch.from_numpy(rule(mask).astype(np.int64)).to(device))
            pieces.append(len(grid))
        return Samples(tuple(images), tuple(labels), shapes, specs, tuple(pieces))

    @staticmethod
    def from_arrays(
        images: Array, labels: Array, name: str = "image", spec: InputSpec | None = None
    ) -> Samples:
        """Images that all have the size of a network with one input [1, C, H, W].

        Args:
            images: uint8 [N, H, W] or [N, H, W, C].
            labels: class indices [N, H, W].
            name: of the input.
            spec: what pixels mean; 0..1 if nothing is said.

        Raises:
            DataError: images and labels do not belong together.
        """
        if images.ndim == 3:
            images = images[..., None]
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[:3] != labels.shape:
            raise DataError(
                f"images of {images.dtype} {list(images.shape)} and labels {list(labels.shape)}: "
                f"give uint8 [N, H, W, C] and class indices [N, H, W]"
            )
        shape = (1, images.shape[3], *images.shape[1:3])
        return Samples(
            tuple({name: _first(image, (1, *image.shape))} for image in images),
            tuple(torch.from_numpy(label.astype(np.int64)) for label in labels),
            {name: shape},
            {name: spec or InputSpec()},
            (1,) * len(images),
        )

    def subset(self, chosen: Sequence[int]) -> Samples:
        """These images in this order; one may come several times, as in bootstrap samples."""
        return dataclasses.replace(
            self,
            images=tuple(self.images[index] for index in chosen),
            labels=tuple(self.labels[index] for index in chosen),
            pieces=tuple(self.pieces[index] for index in chosen),
        )

    def in_order(self, size: int) -> Iterator[Batch]:
        """Every image once, as it is; for images of the network's size.

        Args:
            size: of a batch; the last one may be smaller.
        """
        unused = torch.Generator()
        for begin in range(0, len(self.images), size):
            chosen = range(begin, min(begin + size, len(self.images)))
            yield self._batch(chosen, Augment(frozenset()), unused)

    def batches(self, size: int, augment: Augment, generator: torch.Generator) -> Iterator[Batch]:
        """One epoch: every image as often as it has pieces, in random order.

        Args:
            size: of a batch; the last one may be smaller.
            augment: how pieces are varied.
            generator: of everything that is drawn.
        """
        order = [index for index, count in enumerate(self.pieces) for _ in range(count)]
        shuffled = torch.randperm(len(order), generator=generator).tolist()
        for begin in range(0, len(order), size):
            chosen = [order[place] for place in shuffled[begin : begin + size]]
            yield self._batch(chosen, augment, generator)

    def steps(self, size: int) -> int:
        """Batches in an epoch."""
        return -(-sum(self.pieces) // size)

    def class_counts(self, classes: int) -> list[int]:
        """Pixels of each class."""
        counts = [torch.bincount(label.reshape(-1), minlength=classes) for label in self.labels]
        total = torch.stack([count[:classes] for count in counts]).sum(dim=0)
        return [int(count) for count in total]

    def _batch(self, chosen: Sequence[int], augment: Augment, generator: torch.Generator) -> Batch:
        names = list(self.shapes)
        spatial = spatial_shape(self.shapes[names[0]])
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        labels = []
        for index in chosen:
            image, label = self.images[index], self.labels[index]
            starts = [
                int(torch.randint(0, max(0, size - tile) + 1, (1,), generator=generator))
                for size, tile in zip(label.shape, spatial, strict=True)
            ]
            for name in names:
                same = tuple(image[name].shape[1:]) == tuple(label.shape)
                size = spatial_shape(self.shapes[name])
                corner = starts if same else [0] * len(size)
                parts[name].append(_piece(image[name].float(), corner, size))
            labels.append(_piece(label[None], starts, spatial, IGNORED)[0])
        images = {name: torch.stack(items) for name, items in parts.items()}
        is_pixels = all(self.specs[name].kind is InputKind.UINT8 for name in names)
        images, marked = augment(images, torch.stack(labels), generator, is_pixels)
        return Batch({name: self._real(name, data) for name, data in images.items()}, marked)

    def _real(self, name: str, data: Tensor) -> Tensor:
        spec = self.specs[name]
        if spec.kind is InputKind.UINT8:
            scale, mean, std = (
                spread(torch.tensor(values, dtype=torch.float32, device=data.device), 1, data.ndim)
                for values in (spec.scale, spec.mean, spec.std)
            )
            data = (data * scale - mean) / std
        axis = channel_axis(self.shapes[name])
        return data if axis == 1 else data.movedim(1, axis)


def _first(image: Array, shape: Shape) -> Tensor:
    """With the channels first."""
    moved = np.moveaxis(image, channel_axis(shape) - 1, 0)
    kind = np.uint8 if moved.dtype == np.uint8 else np.float32
    return torch.from_numpy(np.array(moved, dtype=kind, order="C"))


def _piece(
    image: Tensor, starts: Sequence[int], spatial: Sequence[int], beyond: int | None = None
) -> Tensor:
    """A piece of [C, *size]; beyond the end the last row goes on, or `beyond` is put."""
    place = tuple(slice(start, start + size) for start, size in zip(starts, spatial, strict=True))
    part = image[(slice(None), *place)]
    missing = [size - has for size, has in zip(spatial, part.shape[1:], strict=True)]
    if not any(missing):
        return part
    borders = [size for end in reversed(missing) for size in (0, end)]
    if beyond is not None:
        return functional.pad(part, borders, value=beyond)
    for axis, (has, end) in enumerate(zip(part.shape[1:], missing, strict=True), start=1):
        chosen = torch.arange(has + end, device=part.device).clamp(max=has - 1)
        part = torch.index_select(part, axis, chosen)
    return part
