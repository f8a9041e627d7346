"""The weights of one operator as the compiled network will hold them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from qcompile.graph import Op
from qcompile.passes import weight_rows as arrays
from qcompile.passes.quantizers.exact import LARGEST_CODE
from qcompile.passes.weight_quantizers import exact_rows, quantize_rows
from qcompile.plan import Format, Quantizer
from qcompile.train.codes import RULES
from qcompile.train.tensors import round_half_up
from qcompile.train.weight_rows import from_rows, to_rows
from qcompile.types import Array, IntType


class WeightQuantizer(nn.Module):
    """Real weights to the real numbers that their codes stand for.

    `scaled` and `fixed` have a learned scale for each row, `2**delta` times the one that the
    compiler would choose for the weights at the start; `fixed` rounds delta, so that scales stay
    powers of two. Codes beyond `LARGEST_CODE` could not be read back from exported weights unless
    the largest one occurs: such rows follow their largest weight. All other quantizers compute
    their scales from the weights.
    """

    start: Tensor
    delta: Tensor

    def __init__(self, op: Op, weights: Array, chosen: Format, learned: bool = True) -> None:
        """
        Args:
            op: reads the weights.
            weights: at the start.
            chosen: not float.
            learned: whether scales take part in the training.
        """
        super().__init__()
        self.op = op
        self.chosen = chosen
        self.element = IntType(max(chosen.bits, 2), narrow=True)
        if chosen.quantizer in RULES or self._follows_largest:
            return
        rows = arrays.to_rows(op, weights).astype(np.float64)
        start = torch.from_numpy(_start_scales(rows, chosen, self.element))
        self.register_buffer("start", start)
        if chosen.q is None and learned:
            self.delta = nn.Parameter(torch.zeros(len(start)))
        else:
            self.register_buffer("delta", torch.zeros(len(start)))

    @property
    def _follows_largest(self) -> bool:
        is_wide = self.element.high > LARGEST_CODE
        return self.chosen.quantizer is Quantizer.SCALED and is_wide

    def scales(self, rows: Tensor) -> Tensor:
        """One for each row, [rows, 1]."""
        if self._follows_largest:
            largest = rows.detach().abs().amax(dim=1, keepdim=True)
            return torch.where(largest > 0, largest, 1.0) / self.element.high
        delta = self.delta
        if self.chosen.quantizer is Quantizer.FIXED:
            delta = round_half_up(delta)
        return (self.start.to(rows.dtype) * torch.exp2(delta.to(rows.dtype)))[:, None]

    def forward(self, weights: Tensor) -> Tensor:
        """Weights on their grid, with gradients for them and for the scales."""
        rows = to_rows(self.op, weights)
        if self.chosen.quantizer in RULES:
            reals = RULES[self.chosen.quantizer](rows, self.chosen)
        else:
            scales = self.scales(rows)
            steps = torch.clamp(rows / scales, self.element.low, self.element.high)
            reals = round_half_up(steps) * scales
        return from_rows(self.op, reals, tuple(weights.shape))

    def grid(self, weights: Tensor) -> Tensor:
        """What the compiler gets."""
        result: Tensor = self(weights)
        return result


def _start_scales(rows: Array, chosen: Format, element: IntType) -> Array:
    """The compiler's; those of the grid that weights lie on already if the codes fit."""
    exact = exact_rows(rows, chosen)
    if exact is not None and np.abs(exact.codes).max(initial=0) <= element.high:
        return exact.scales
    return quantize_rows(rows, chosen).scales
