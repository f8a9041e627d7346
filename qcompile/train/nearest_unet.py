"""What the U-Nets without transposed convolutions have in common: everything but their blocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Block = Callable[[int, int], nn.Module]
"""block(inputs, outputs): keeps height and width."""


class NearestUNet(nn.Module):
    """[N, channels, H, W] to what the head makes of it; H and W are multiples of 2**depth.

    Maximum on the way down, nearest neighbour and concatenation on the way up.
    """

    def __init__(
        self,
        channels: int,
        base: int,
        depth: int,
        first: Block,
        block: Block,
        head: Callable[[], nn.Module],
    ) -> None:
        """
        Args:
            channels: of images.
            base: channels of the first level; each level has twice those of the one before.
            depth: how often the size is halved.
            first: makes the block that sees the images.
            block: makes all others, in the order in which they compute.
            head: makes what reads `base` channels, last.
        """
        super().__init__()
        widths = [base << level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            [first(channels, base), *(block(*pair) for pair in itertools.pairwise(widths))]
        )
        self.up = nn.ModuleList(block(3 * width, width) for width in reversed(widths[:-1]))
        self.head = head()

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            larger = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([skip, larger], dim=1))
        result: Tensor = self.head(x)
        return result
