"""A U-Net whose inner layers are ternary times ternary, and the float network of the same shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from qcompile.errors import UsageError
from qcompile.train.nearest_unet import NearestUNet
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


class TernaryUNet(NearestUNet):
    """[N, channels, H, W] to logits [N, outputs, H, W]; H and W are multiples of 2**depth.

    Every level has two times 3x3 convolution, batch norm, activation. On the way down and up values
    are chosen and copied: an average or a bilinear one would leave -1, 0 and 1. The first
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
        is_float = continuation is None
        convolution = nn.Conv2d if is_float else TernaryConv2d
        ends = nn.Conv2d if is_float else ByteConv2d

        def block(inputs: int, outputs: int, first: type[nn.Conv2d] = convolution) -> nn.Sequential:
            layers: list[nn.Module] = []
            for kind, channels in ((first, inputs), (convolution, outputs)):
                layers.append(kind(channels, outputs, 3, padding=1, bias=False))
                layers.append(nn.BatchNorm2d(outputs))
                layers.append(nn.ReLU() if continuation is None else TernaryTanh(continuation))
            return nn.Sequential(*layers)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(
                shape.channels,
                shape.base,
                shape.depth,
                lambda inputs, outputs: block(inputs, outputs, ends),
                block,
                lambda: ends(shape.base, shape.outputs, 1),
            )
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.xavier_normal_(layer.weight, math.sqrt(2))
        last = self.up[-1]
        assert isinstance(last, nn.Sequential)
        last[-1] = nn.ReLU()
        self.shape = shape
        self.continuation = continuation
