"""Weights that become powers of two portion by portion, and then stay what they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from qcompile.plan import Format
from qcompile.train.codes import powers_of_two, top_exponent
from qcompile.types import Array


class IncrementalWeights(nn.Module):
    """The weights of one operator in incremental quantization: frozen ones have their power of two,
    the others are real numbers in training.

    The powers are those of `--quantizer pow2` for the weights at the start, and stay so for the
    whole run: n1 from the largest weight of the tensor, n2 from n1 and the width. Masks and codes
    are buffers, so that checkpoints hold them.
    """

    top: Tensor
    frozen: Tensor
    codes: Tensor

    def __init__(self, weights: Array, chosen: Format) -> None:
        """
        Args:
            weights: at the start.
            chosen: `pow2` with its bits.
        """
        super().__init__()
        self.chosen = chosen
        start = torch.from_numpy(np.array(weights, dtype=np.float32))
        self.register_buffer("top", torch.tensor(top_exponent(start)))
        self.register_buffer("frozen", torch.zeros(start.shape, dtype=torch.bool))
        self.register_buffer("codes", torch.zeros_like(start))

    def forward(self, weights: Tensor) -> Tensor:
        """What training computes with: frozen weights have no gradient."""
        return torch.where(self.frozen, self.codes.to(weights.dtype), weights)

    def grid(self, weights: Tensor) -> Tensor:
        """All weights as powers of two: what the network would be if the rest were frozen now."""
        plain = weights.detach()
        rounded = powers_of_two(plain, int(self.top), self.chosen.bits)
        return torch.where(self.frozen, self.codes.to(plain.dtype), rounded)

    @torch.no_grad()
    def freeze(self, weights: Tensor, share: float) -> None:
        """Freezes the largest of the free weights until `share` of all are frozen. Of equal ones
        the first is taken.

        Args:
            weights: as trained so far.
            share: above 0, at most 1.
        """
        free = ~self.frozen.reshape(-1)
        count = int(share * free.numel() + 0.5) - int(free.numel() - free.sum())
        if count <= 0:
            return
        magnitudes = torch.where(free, weights.detach().abs().reshape(-1), -1.0)
        chosen = torch.sort(magnitudes, descending=True, stable=True).indices[:count]
        codes = self.grid(weights)
        self.frozen.reshape(-1)[chosen] = True
        self.codes.copy_(torch.where(self.frozen, codes, 0.0))
