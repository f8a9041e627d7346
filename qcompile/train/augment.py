"""Varying training images: flips, rotations, shifts, brightness."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from qcompile.errors import UsageError

KINDS = ("flips", "rotations", "shifts", "brightness")
EXPOSURE = "exposure"
"""Beside those, if it is asked for by name."""
IGNORED = -1
"""The label of pixels that do not count: beyond the image."""
MOST_ROTATION = math.radians(15)
MOST_SHIFT = 0.1
"""Of the size of the image."""
MOST_SCALING = 0.1
MOST_STOPS = 1.0
"""Pixels are doubled or halved at most."""
MOST_CONTRAST, MOST_BRIGHTNESS = 0.2, 0.1
"""Of the largest pixel, and of the deviation of floats."""


@dataclass(frozen=True, slots=True)
class Augment:
    """What is varied, each on its own for every image.

    `flips` along each axis; `rotations` by up to 15 degrees, and by quarters of a turn where images
    are square; `shifts` by up to a tenth, with scaling by up to a tenth; `brightness` with
    contrast, by up to a tenth and a fifth; `exposure` multiplies by 1/2 to 2, as scanners differ
    more than the images of one of them do. Volumes are only flipped, brightened and exposed.
    """

    kinds: frozenset[str] = frozenset(KINDS)

    def __call__(
        self,
        images: dict[str, Tensor],
        labels: Tensor,
        generator: torch.Generator,
        is_pixels: bool,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """
        Args:
            images: [N, C, *spatial] float32, pixels 0..255 or other floats.
            labels: [N, *spatial] int64.
            generator: of what is drawn.
            is_pixels: brightness is limited to 0..255.
        """
        same = {data.shape[2:] for data in images.values()} == {labels.shape[1:]}
        if same and "flips" in self.kinds:
            images, labels = _flip(images, labels, generator)
        if same and labels.ndim == 3 and self.kinds & {"rotations", "shifts"}:
            images, labels = self._warp(images, labels, generator)
        if EXPOSURE in self.kinds:
            images = {name: _expose(data, generator, is_pixels) for name, data in images.items()}
        if "brightness" in self.kinds:
            images = {name: _brighten(data, generator, is_pixels) for name, data in images.items()}
        return images, labels

    def _warp(
        self, images: dict[str, Tensor], labels: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        count, height, width = labels.shape
        # Drawn on the CPU, so that equal seeds draw alike everywhere.
        angles, scaling = torch.zeros(count), torch.ones(count)
        shifts = torch.zeros(count, 2)
        if "rotations" in self.kinds:
            angles = _uniform(count, generator) * MOST_ROTATION
            if height == width:
                turns = torch.randint(0, 4, (count,), generator=generator)
                angles = angles + turns * (math.pi / 2)
        if "shifts" in self.kinds:
            shifts = _uniform((count, 2), generator) * (2 * MOST_SHIFT)
            scaling = 1 + _uniform(count, generator) * MOST_SCALING
        cosine, sine = torch.cos(angles) * scaling, torch.sin(angles) * scaling
        # Coordinates run from -1 to 1 along both axes: the ratio keeps the angle right.
        ratio = height / width
        rows = torch.stack([cosine, -sine * ratio, shifts[:, 0]], dim=1)
        columns = torch.stack([sine / ratio, cosine, shifts[:, 1]], dim=1)
        matrix = torch.stack([rows, columns], dim=1)
        matrix = matrix.to(labels.device)
        grid = functional.affine_grid(matrix, [count, 1, height, width], align_corners=False)
        moved = {
            name: functional.grid_sample(data, grid, "bilinear", "reflection", False)
            for name, data in images.items()
        }
        # Labels beyond the image do not count, though its reflection is seen there.
        marks = (labels - IGNORED).float()[:, None]
        found = functional.grid_sample(marks, grid, "nearest", "zeros", False)[:, 0]
        return moved, found.round().to(torch.int64) + IGNORED


def parse_augment(text: str) -> Augment:
    """'flips,brightness', 'all' (but for exposure) or 'none'.

    Raises:
        UsageError: something is unknown.
    """
    if text == "all":
        return Augment()
    parts = frozenset() if text == "none" else frozenset(text.split(","))
    unknown = sorted(parts - {*KINDS, EXPOSURE})
    if unknown:
        raise UsageError(
            f"--augment: '{unknown[0]}' is unknown; use all, none or some of "
            f"{', '.join((*KINDS, EXPOSURE))}"
        )
    return Augment(parts)


def _uniform(shape: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Numbers from -1 to 1."""
    return 2 * torch.rand(shape, generator=generator) - 1


def _flip(
    images: dict[str, Tensor], labels: Tensor, generator: torch.Generator
) -> tuple[dict[str, Tensor], Tensor]:
    count = labels.shape[0]
    for axis in range(1, labels.ndim):
        flipped = (torch.rand(count, generator=generator) < 0.5).to(labels.device)
        images = {
            name: torch.where(
                flipped.reshape(-1, *(1,) * (data.ndim - 1)), data.flip(axis + 1), data
            )
            for name, data in images.items()
        }
        mask = flipped.reshape(-1, *(1,) * (labels.ndim - 1))
        labels = torch.where(mask, labels.flip(axis), labels)
    return images, labels


def _expose(data: Tensor, generator: torch.Generator, is_pixels: bool) -> Tensor:
    count = data.shape[0]
    factors = torch.exp2(MOST_STOPS * _uniform(count, generator)).to(data.device)
    result = data * factors.reshape(count, *(1,) * (data.ndim - 1))
    return result.clamp(max=255) if is_pixels else result


def _brighten(data: Tensor, generator: torch.Generator, is_pixels: bool) -> Tensor:
    count = data.shape[0]
    shape = (count, *(1,) * (data.ndim - 1))
    draws = [_uniform(count, generator).reshape(shape).to(data.device) for _ in range(2)]
    contrast, shift = 1 + MOST_CONTRAST * draws[0], MOST_BRIGHTNESS * draws[1]
    axes = tuple(range(1, data.ndim))
    mean = data.mean(dim=axes, keepdim=True)
    unit = 255.0 if is_pixels else data.std(dim=axes, keepdim=True)
    result = (data - mean) * contrast + mean + shift * unit
    return result.clamp(0, 255) if is_pixels else result
