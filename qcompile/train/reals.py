"""Operators on real numbers in torch: one row for each operator of a float graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from qcompile.graph import Op
from qcompile.ops import (
    Activation,
    Add,
    Affine,
    AveragePool,
    BatchMatMul,
    Conv,
    ConvTranspose,
    Div,
    FakeQuantize,
    GroupNorm,
    LayerNorm,
    LinearResize,
    LocalAttention2d,
    MatMul,
    Mul,
    ReduceMean,
    Rescale,
    SumOp,
    Threshold,
)
from qcompile.train.functions import FUNCTIONS
from qcompile.train.local_attention import window_attention
from qcompile.train.movement import MOVERS
from qcompile.train.sums import (
    convolve,
    divisor_grid,
    interpolate,
    real_taps,
    spread_out,
    window_sums,
)
from qcompile.train.tensors import spread, straight_through
from qcompile.types import Rounding

ATTENTION_SHIFT = 5
"""Where the shift is among the inputs of an attention; the bias of other sums is the third."""


@dataclass(frozen=True)
class Vectors:
    """Slope, gain and shift of an activation as tensors; None where they are constants."""

    slope: Tensor | None = None
    gain: Tensor | None = None
    shift: Tensor | None = None


def real_operator(op: Op, inputs: Sequence[Tensor], vectors: Vectors | None = None) -> Tensor:
    """The output of a float operator: for sums with bias and activation.

    Args:
        op: any operator of a float graph.
        inputs: all of them, constants too.
        vectors: trained parameters of the activation of a sum.
    """
    if isinstance(op, SumOp):
        acc = _SUMS[type(op)](op, inputs)
        axis = op.channel_axis(acc.ndim)
        bias = ATTENTION_SHIFT if isinstance(op, LocalAttention2d) else 2
        if len(inputs) > bias:
            acc = acc + spread(inputs[bias], axis, acc.ndim)
        return activate(op.activation, acc, axis, vectors or Vectors())
    if type(op) in FUNCTIONS:
        return FUNCTIONS[type(op)](op, *inputs)
    if isinstance(op, Threshold):
        return (inputs[0] > op.limit).to(torch.int64)
    if isinstance(op, FakeQuantize):
        return fake_quantize(op, inputs[0])
    return MOVERS[type(op)](op, inputs)


def activate(activation: Activation, z: Tensor, axis: int, vectors: Vectors) -> Tensor:
    """y = clip(gain * leaky(z) + shift, low, high)."""

    def vector(trained: Tensor | None, values: tuple[float, ...]) -> Tensor:
        if trained is None:
            trained = torch.tensor(values, dtype=z.dtype, device=z.device)
        return spread(trained, axis, z.ndim)

    if activation.slope == (0.0,):
        z = functional.relu(z)
    elif activation.slope != (1.0,):
        z = torch.where(z < 0, z * vector(vectors.slope, activation.slope), z)
    if activation.gain != (1.0,) or vectors.gain is not None:
        z = z * vector(vectors.gain, activation.gain)
    if activation.shift != (0.0,) or vectors.shift is not None:
        z = z + vector(vectors.shift, activation.shift)
    if activation.low != -math.inf or activation.high != math.inf:
        z = torch.clamp(z, activation.low, activation.high)
    return z


def fake_quantize(op: FakeQuantize, x: Tensor) -> Tensor:
    """The grid of a model that was quantised elsewhere; the gradient ends where it saturates."""
    steps = x / op.scale
    if op.binary:
        sign = torch.where(steps < 0, -1.0, 1.0).to(x.dtype)
        return straight_through(sign * op.scale, torch.clamp(x, -op.scale, op.scale))
    codes = torch.clamp(_ROUNDINGS[op.rounding](steps.detach()), op.low, op.high)
    limited = torch.clamp(x, op.low * op.scale, op.high * op.scale)
    return straight_through(codes * op.scale, limited)


def _away(x: Tensor, add: float, finish: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.copysign(finish(torch.abs(x) + add), x)


_ROUNDINGS: Mapping[Rounding, Callable[[Tensor], Tensor]] = {
    Rounding.HALF_EVEN: torch.round,
    Rounding.HALF_UP: lambda x: _away(x, 0.5, torch.floor),
    Rounding.HALF_DOWN: lambda x: _away(x, -0.5, torch.ceil),
    Rounding.UP: lambda x: _away(x, 0.0, torch.ceil),
    Rounding.DOWN: torch.trunc,
    Rounding.CEIL: torch.ceil,
    Rounding.FLOOR: torch.floor,
}


def _add(op: Add, inputs: Sequence[Tensor]) -> Tensor:
    first, second = (
        x if weight == 1 else weight * x for x, weight in zip(inputs, op.weights, strict=True)
    )
    return first + second


def _average_pool(op: AveragePool, inputs: Sequence[Tensor]) -> Tensor:
    return window_sums(op, inputs[0]) / divisor_grid(op, inputs[0])


def _layer_norm(op: LayerNorm, inputs: Sequence[Tensor]) -> Tensor:
    """Without the shift, which is the operator's bias."""
    gain = inputs[1] if len(inputs) > 1 else None
    last = inputs[0].movedim(op.axis, -1)
    normal = functional.layer_norm(last, last.shape[-1:], gain, None, op.epsilon)
    return normal.movedim(-1, op.axis)


def _group_norm(op: GroupNorm, inputs: Sequence[Tensor]) -> Tensor:
    """Without the shift, which is the operator's bias."""
    gain = inputs[1] if len(inputs) > 1 else None
    return functional.group_norm(inputs[0], op.groups, gain, None, op.epsilon)


def _local_attention(op: LocalAttention2d, inputs: Sequence[Tensor]) -> Tensor:
    """Without the shift, which is the operator's bias."""
    q, k, v, relative = inputs[:4]
    k, v = padded_images(op, k), padded_images(op, v)
    result = window_attention(q, k, v, relative, op.heads, op.score_scale)
    return result * spread(inputs[4], 1, 4) if len(inputs) > 4 else result


def padded_images(op: LocalAttention2d, x: Tensor) -> Tensor:
    """Keys or values with zeros around."""
    (top, left), (bottom, right) = op.pads_begin, op.pads_end
    return functional.pad(x, (left, right, top, bottom))


_SUMS: Mapping[type[Op], Callable[[Any, Sequence[Tensor]], Tensor]] = {
    Conv: lambda op, inputs: convolve(op, inputs[0], inputs[1]),
    ConvTranspose: lambda op, inputs: spread_out(op, inputs[0], inputs[1]),
    MatMul: lambda op, inputs: torch.matmul(inputs[0], inputs[1]),
    BatchMatMul: lambda op, inputs: torch.matmul(inputs[0], inputs[1]),
    Affine: lambda op, inputs: inputs[0] * spread(inputs[1], 1, inputs[0].ndim),
    Rescale: lambda op, inputs: inputs[0],
    Add: _add,
    Mul: lambda op, inputs: inputs[0] * inputs[1],
    Div: lambda op, inputs: inputs[0] / inputs[1],
    AveragePool: _average_pool,
    ReduceMean: lambda op, inputs: inputs[0].mean(dim=op.axes, keepdim=op.keepdims),
    LinearResize: lambda op, inputs: interpolate(op, inputs[0], real_taps(op)),
    GroupNorm: _group_norm,
    LayerNorm: _layer_norm,
    LocalAttention2d: _local_attention,
}

REAL_OPERATORS: tuple[type[Op], ...] = (*_SUMS, *FUNCTIONS, Threshold, FakeQuantize, *MOVERS)
"""Every operator that a float graph may have."""
