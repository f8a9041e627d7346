"""What a ternary network is trained of: ternary weights, a ternary tanh that hardens, 8-bit ends.

Formulas: Li et al. 2016 ("Ternary weight networks") for weights, Heinrich, Blendowski and Oktay
2018 ("TernaryNet") for activations.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qcompile.errors import UsageError
from qcompile.plan import Format, Quantizer
from qcompile.train.codes import twn
from qcompile.train.tensors import round_half_up

THRESHOLD = 0.5
"""Activations beyond +-1/2 (strictly) become +-1, the others 0."""
ENDS = 8
"""Bits of the weights of first and last layer."""

_TWN = Format(2, Quantizer.TWN)


@dataclass(frozen=True, slots=True)
class BetaSchedule:
    """Steepness by epoch: `first` in epoch 1, `last` in epoch `epochs`, in equal steps between.

    Attributes:
        first: steepness at the start.
        last: at the end.
        epochs: with a soft tanh; what comes after them is hard.
    """

    first: float = 3.0
    last: float = 8.0
    epochs: int = 40

    def __post_init__(self) -> None:
        if not (0 < self.first <= self.last < 1000) or self.epochs < 1:
            raise UsageError(
                f"beta from {self.first:g} to {self.last:g} in {self.epochs} epochs: give two "
                f"positive numbers that rise, and at least one epoch"
            )

    def at(self, epoch: int) -> float:
        """Of an epoch, counted from 1; later ones keep the last."""
        share = min(epoch - 1, self.epochs - 1) / max(1, self.epochs - 1)
        return self.first + (self.last - self.first) * share


@dataclass
class Continuation:
    """How hard all ternary activations of a network are now: the one place that holds it.

    Attributes:
        beta: steepness of the tanh; of its gradient alone once activations are hard.
        is_hard: whether values are -1, 0 and 1.
    """

    beta: float = 3.0
    is_hard: bool = False


class TernaryTanh(nn.Module):
    """(tanh(2 beta x - beta) - tanh(-2 beta x - beta)) / 2, or its limit.

    Two steps, at -1/2 and 1/2. Hard, the value is sign(x) where |x| > 1/2, else 0, and the gradient
    that of the tanh.
    """

    def __init__(self, continuation: Continuation) -> None:
        """
        Args:
            continuation: shared by all activations of the network.
        """
        super().__init__()
        self.continuation = continuation

    def forward(self, x: Tensor) -> Tensor:
        beta = self.continuation.beta
        if self.continuation.is_hard:
            hard: Tensor = _HardTanh.apply(x, beta)  # type: ignore[no-untyped-call]
            return hard
        soft: Tensor = 0.5 * (torch.tanh(2 * beta * x - beta) - torch.tanh(-2 * beta * x - beta))
        return soft


class _HardTanh(torch.autograd.Function):
    """-1, 0 and 1 with the gradient of the soft tanh, which is not computed on the way there."""

    @staticmethod
    def forward(context: Any, x: Tensor, beta: float) -> Tensor:
        context.save_for_backward(x)
        context.beta = beta
        return functional.hardshrink(x, THRESHOLD).sign_()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = context.saved_tensors
        beta = context.beta
        # Both tanhs have slope 2 beta (1 - tanh**2), and half of each counts.
        rising = torch.tanh(2 * beta * x - beta).square_()
        falling = torch.tanh(2 * beta * x + beta).square_()
        slope = rising.add_(falling).neg_().add_(2).mul_(beta)
        return slope.mul_(gradients[0]), None


class Ternariser(nn.Module):
    """The hard form alone, as operators that ONNX has: Sign(x) * Cast(Abs(x) > 1/2)."""

    def forward(self, x: Tensor) -> Tensor:
        return ternarised(x)


def ternarised(x: Tensor) -> Tensor:
    """-1, 0 and 1; exactly +-1/2 is 0."""
    return torch.sign(x) * (torch.abs(x) > THRESHOLD).to(x.dtype)


class TernaryConv2d(nn.Conv2d):
    """Convolution with weights of -alpha, 0 and alpha, alpha for each filter.

    Delta = 0.7 * mean |w| of the filter; weights beyond +-Delta (strictly) become +-alpha, their
    mean magnitude; a filter of zeros stays zero. Gradients go to the stored weights, unchanged.
    """

    def on_grid(self) -> Tensor:
        """The weights that are multiplied with, [out, in, kernel, kernel]."""
        return twn(self.weight.flatten(1), _TWN).reshape(self.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self._conv_forward(x, self.on_grid(), self.bias)
        return result


class ByteConv2d(nn.Conv2d):
    """Convolution with symmetric 8-bit weights, a scale for each filter, whose largest weight has
    code 127. Gradients go to the stored weights, unchanged."""

    def on_grid(self) -> Tensor:
        """The weights that are multiplied with, [out, in, kernel, kernel]."""
        rows = self.weight.flatten(1)
        largest = rows.detach().abs().amax(dim=1, keepdim=True)
        scales = torch.where(largest > 0, largest, 1.0) / (2 ** (ENDS - 1) - 1)
        grid: Tensor = round_half_up(rows / scales) * scales
        return grid.reshape(self.weight.shape)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self._conv_forward(x, self.on_grid(), self.bias)
        return result


def deployed(module: nn.Module) -> nn.Module:
    """A copy of ordinary layers: weights on their grids, and activations as they are now, hard ones
    as `Ternariser`. It has no trained state of its own and is what is exported.

    Args:
        module: with layers of this file anywhere in it.
    """
    return _replaced(copy.deepcopy(module)).eval()


@torch.no_grad()
def _replaced(module: nn.Module) -> nn.Module:
    if isinstance(module, TernaryTanh):
        return Ternariser() if module.continuation.is_hard else module
    if isinstance(module, TernaryConv2d | ByteConv2d):
        plain = nn.Conv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size,  # type: ignore[arg-type]
            module.stride,  # type: ignore[arg-type]
            module.padding,  # type: ignore[arg-type]
            module.dilation,  # type: ignore[arg-type]
            module.groups,
            bias=module.bias is not None,
        ).to(module.weight)
        plain.weight.copy_(module.on_grid())
        if module.bias is not None and plain.bias is not None:
            plain.bias.copy_(module.bias)
        return plain
    for name, child in module.named_children():
        setattr(module, name, _replaced(child))
    return module
