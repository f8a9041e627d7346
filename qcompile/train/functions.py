"""Functions of real numbers in torch: one for each `Pointwise` operator, and softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from qcompile.graph import Op
from qcompile.ops import (
    Elu,
    Erf,
    Exp,
    Gelu,
    HardSigmoid,
    HardSwish,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Sqrt,
    Steps,
    Tanh,
    TernaryTanh,
)

Function = Callable[..., Tensor]
"""function(op, x), for a masked softmax also the mask."""


def sigmoid(op: Sigmoid, x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return torch.sigmoid(x)


def hard_sigmoid(op: HardSigmoid, x: Tensor) -> Tensor:
    """clip(alpha * x + beta, 0, 1)."""
    return torch.clamp(op.alpha * x + op.beta, 0, 1)


def hard_swish(op: HardSwish, x: Tensor) -> Tensor:
    """x * clip(x / 6 + 1/2, 0, 1)."""
    return x * torch.clamp(x / 6 + 0.5, 0, 1)


def silu(op: Silu, x: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return x * torch.sigmoid(x)


def tanh(op: Tanh, x: Tensor) -> Tensor:
    """tanh(x)."""
    return torch.tanh(x)


def ternary_tanh(op: TernaryTanh, x: Tensor) -> Tensor:
    """(tanh(2 beta x - beta) - tanh(-2 beta x - beta)) / 2."""
    steep = 2 * op.beta * x
    return (torch.tanh(steep - op.beta) - torch.tanh(-steep - op.beta)) / 2


def steps(op: Steps, x: Tensor) -> Tensor:
    """Constant between the limits: no gradient passes."""
    place = torch.zeros_like(x, dtype=torch.int64)
    for limit in op.limits:
        place = place + (x >= limit) + (x > limit)
    return torch.tensor(op.values, dtype=x.dtype, device=x.device)[place]


def elu(op: Elu, x: Tensor) -> Tensor:
    """x for x >= 0, else alpha * (exp(x) - 1)."""
    return functional.elu(x, op.alpha)


def softplus(op: Softplus, x: Tensor) -> Tensor:
    """log(1 + exp(x))."""
    return functional.softplus(x)


def exp(op: Exp, x: Tensor) -> Tensor:
    """exp(x)."""
    return torch.exp(x)


def gelu(op: Gelu, x: Tensor) -> Tensor:
    """x times the normal distribution at x, or its approximation by tanh."""
    return functional.gelu(x, approximate="tanh" if op.tanh else "none")


def erf(op: Erf, x: Tensor) -> Tensor:
    """erf(x)."""
    return torch.erf(x)


def sqrt(op: Sqrt, x: Tensor) -> Tensor:
    """sqrt(x), 0 for negative x."""
    return torch.sqrt(functional.relu(x))


def softmax(op: Softmax, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along the axis, over what the mask leaves."""
    if mask is None:
        return torch.softmax(x, dim=op.axis)
    takes_part = mask != 0
    soft = torch.softmax(torch.where(takes_part, x, -1e30), dim=op.axis)
    return torch.where(takes_part, soft, 0.0)


FUNCTIONS: Mapping[type[Op], Function] = {
    Sigmoid: sigmoid,
    HardSigmoid: hard_sigmoid,
    HardSwish: hard_swish,
    Silu: silu,
    Tanh: tanh,
    TernaryTanh: ternary_tanh,
    Steps: steps,
    Elu: elu,
    Softplus: softplus,
    Exp: exp,
    Gelu: gelu,
    Erf: erf,
    Sqrt: sqrt,
    Softmax: softmax,
}
