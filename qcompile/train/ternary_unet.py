"""A U-Net whose inner layers are ternary times ternary, and the float network of the same shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from qcompile.errors import UsageError
from qcompile.train.ternary_layers import ByteConv2d, Continuation, TernaryConv2d, TernaryTanh


@dataclass(frozen=True, slots=True)
class UNetShape:
    """What float and ternary network have in common.

    Attributes:
        channels: of images.
        outputs: logits for each pixel; 1: foreground or not.
        base: channels of the first level; each level has twice those of the one before.
        depth: how often the size is halved.
    """

    channels: int = 1
    outputs: int = 1
    base: int = 16
    depth: int = 4

    def __post_init__(self) -> None:
        for name, value, least in (
            ("channels", self.channels, 1),
            ("outputs", self.outputs, 1),
            ("base", self.base, 1),
            ("depth", self.depth, 1),
        ):
            if value < least:
                raise UsageError(f"U-Net: {name} {value} is too small; use {least} or more")


class TernaryUNet(nn.Module):
    """[N, channels, H, W] to logits [N, outputs, H, W]; H and W are multiples of 2**depth.

    Every level has two times 3x3 convolution, batch norm, activation. Maximum on the way down,
    nearest neighbour on the way up: an average or a bilinear one would leave -1, 0 and 1. The first
    convolution, which sees pixels, and the head have weights of 8 bits; all others read and
    multiply nothing but -1, 0 and 1. What the head reads comes from a ReLU, as published.
    """

    def __init__(
        self, shape: UNetShape, continuation: Continuation | None = None, seed: int = 0
    ) -> None:
        """
        Args:
            shape: of the network.
            continuation: of its ternary activations; None makes the float network of this shape,
                with ReLU.
            seed: of the weights at the start. torch's own generator is left alone.
        """
        super().__init__()
        self.shape = shape
        self.continuation = continuation
        widths = [shape.base << level for level in range(shape.depth + 1)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.ModuleList(
                self._block(inputs, outputs, level == 0)
                for level, (inputs, outputs) in enumerate(
                    zip([shape.channels, *widths[:-1]], widths, strict=True)
                )
            )
            self.up = nn.ModuleList(
                self._block(3 * width, width, False) for width in reversed(widths[:-1])
            )
            self.up[-1][-1] = nn.ReLU()
            head = nn.Conv2d if continuation is None else ByteConv2d
            self.head = head(shape.base, shape.outputs, 1)
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.xavier_normal_(layer.weight, math.sqrt(2))

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

    def _block(self, inputs: int, outputs: int, is_first: bool) -> nn.Sequential:
        layers: list[nn.Module] = []
        for place, channels in enumerate((inputs, outputs)):
            kind = nn.Conv2d
            if self.continuation is not None:
                kind = ByteConv2d if is_first and place == 0 else TernaryConv2d
            layers.append(kind(channels, outputs, 3, padding=1, bias=False))
            layers.append(nn.BatchNorm2d(outputs))
            layers.append(
                nn.ReLU() if self.continuation is None else TernaryTanh(self.continuation)
            )
        return nn.Sequential(*layers)
