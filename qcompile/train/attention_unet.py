"""A U-Net of local self-attention, and the convolutional network of the same shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from qcompile.train.local_attention import LocalAttention2d

KERNEL = 3


class AttentionUNet(nn.Module):
    """[N, channels, H, W] to logits [N, classes or 1, H, W]; H and W are multiples of 2**depth.

    Every level has two times attention over a 3x3 window (or 3x3 convolution), batch norm, ReLU, as
    in Sathish, Khare and Sheet 2022 (arXiv 2209.15287), who replaced every convolution of SUMNet.
    Maximum on the way down, nearest neighbour and concatenation on the way up.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        base: int = 8,
        depth: int = 3,
        heads: int = 1,
        attention: bool = True,
        seed: int = 0,
    ) -> None:
        """
        Args:
            channels: of images.
            classes: logits for each pixel; 1: foreground or not.
            base: channels of the first level; each level has twice those of the one before.
            depth: how often the size is halved.
            heads: of every attention; divides `base`.
            attention: else the twin, with a convolution in place of each attention.
            seed: of the weights at the start. torch's own generator is left alone.

        Raises:
            ValueError: heads that do not divide the channels.
        """
        super().__init__()
        self.heads = heads if attention else 0
        widths = [base << level for level in range(depth + 1)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.ModuleList(
                self._block(inputs, outputs)
                for inputs, outputs in zip([channels, *widths[:-1]], widths, strict=True)
            )
            self.up = nn.ModuleList(
                self._block(3 * width, width) for width in reversed(widths[:-1])
            )
            self.head = nn.Conv2d(base, classes, 1)

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

    def _block(self, inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            if self.heads:
                layers.append(LocalAttention2d(channels, outputs, KERNEL, self.heads))
            else:
                layers.append(nn.Conv2d(channels, outputs, KERNEL, padding=1, bias=False))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*layers)
