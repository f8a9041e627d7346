"""A U-Net of local self-attention, and the convolutional network of the same shape."""

from __future__ import annotations

import torch
from torch import nn

from qcompile.train.local_attention import LocalAttention2d
from qcompile.train.nearest_unet import NearestUNet

KERNEL = 3


class AttentionUNet(NearestUNet):
    """[N, channels, H, W] to logits [N, classes or 1, H, W]; H and W are multiples of 2**depth.

    Every level has two times attention over a 3x3 window (or 3x3 convolution), batch norm, ReLU, as
    in Sathish, Khare and Sheet 2022 (arXiv 2209.15287), who replaced every convolution of SUMNet.
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

        def block(inputs: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for count in (inputs, outputs):
                if attention:
                    layers.append(LocalAttention2d(count, outputs, KERNEL, heads))
                else:
                    layers.append(nn.Conv2d(count, outputs, KERNEL, padding=1, bias=False))
                layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
            return nn.Sequential(*layers)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(
                channels, base, depth, block, block, lambda: nn.Conv2d(base, classes, 1)
            )
