"""The integer network in torch: what the compiled network computes, code by code.

Codes are int64 tensors. Convolutions and matrix products run in float64, where whole numbers up to
2**53 are exact in any order; wider sums are computed in two halves. So this runs where torch runs,
on many images at a time, and gives the integers of the simulator. Operators that stay float
(`--abits 32`) are float32: there the order of additions is torch's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qcompile.errors import GraphError
from qcompile.graph import Graph, Op, Stage
from qcompile.ops import (
    MOVEMENT,
    Add,
    Affine,
    ArgMax,
    AveragePool,
    BatchMatMul,
    Conv,
    ConvTranspose,
    Dequantize,
    Div,
    GroupNorm,
    LayerNorm,
    LinearResize,
    LocalAttention2d,
    Lookup,
    MatMul,
    MaxPoolIndex,
    Mul,
    NormWidths,
    Quantize,
    ReduceMean,
    Rescale,
    Softmax,
    SumOp,
    Threshold,
)
from qcompile.train.batches import image_slices, is_batchable, joined, part_of
from qcompile.train.epilogues import finish
from qcompile.train.movement import MOVERS
from qcompile.train.reals import padded_images, real_operator
from qcompile.train.sums import convolve, divisor_grid, interpolate, spread_out, window_sums
from qcompile.train.tensors import spread
from qcompile.types import Array, TensorType

EXACT = 1 << 53
HALF_BITS = 24
Accumulator = Callable[[Any, Sequence[Tensor]], Tensor]


class IntegerModule(nn.Module):
    """Runs a graph of stage INTEGER on batches."""

    def __init__(self, graph: Graph) -> None:
        """
        Raises:
            GraphError: the graph is not lowered.
        """
        super().__init__()
        if graph.stage is not Stage.INTEGER:
            raise GraphError(f"graph '{graph.name}' is {graph.stage.value}; lower it first")
        self.graph = graph
        self.batchable = is_batchable(graph)
        self._names: dict[str, str] = {}
        for index, (name, data) in enumerate(graph.constants.items()):
            self._names[name] = f"constant{index}"
            self.register_buffer(self._names[name], _constant(data, graph.types[name]))

    def forward(self, feeds: Mapping[str, Tensor], taps: Collection[str] = ()) -> dict[str, Tensor]:
        """The graph outputs, and the values named in `taps`.

        Args:
            feeds: for each graph input [N, ...] codes of any integer type, or float32.
            taps: further values to return; codes are int64.
        """
        wanted = (*self.graph.outputs, *taps)
        images = image_slices(self.graph, self.batchable, feeds)
        return joined([self._run(part_of(feeds, part), wanted) for part in images])

    @torch.no_grad()
    def _run(self, feeds: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        values = {name: self._fed(name, data) for name, data in feeds.items()}
        last = {value: op.name for op in self.graph.ops for value in op.inputs}
        for op in self.graph.ops:
            inputs = [
                values[name] if name in values else self._constant_for(op, name)
                for name in op.inputs
            ]
            values[op.output] = _computed(self.graph, op, inputs)
            for name in set(op.inputs):
                if last[name] == op.name and name in values and name not in wanted:
                    del values[name]
        return {name: values[name] for name in wanted}

    def _fed(self, name: str, data: Tensor) -> Tensor:
        is_float = self.graph.types[name].is_float
        return data.to(torch.float32) if is_float else data.to(torch.int64)

    def _constant_for(self, op: Op, name: str) -> Tensor:
        data: Tensor = getattr(self, self._names[name])
        kind = self.graph.types[name]
        if kind.is_float or kind.quantization is None or not self.graph.output_type(op).is_float:
            return data
        factors = torch.from_numpy(kind.quantization.factors(kind.shape)).to(data.device)
        return data.to(torch.float32) * factors


def _constant(data: Array, kind: TensorType) -> Tensor:
    wide = data.astype(np.float32 if kind.is_float else np.int64)
    return torch.from_numpy(np.array(wide))


def _computed(graph: Graph, op: Op, inputs: Sequence[Tensor]) -> Tensor:
    if isinstance(op, (ArgMax, MaxPoolIndex, *MOVEMENT)):
        return MOVERS[type(op)](op, inputs)
    if isinstance(op, Threshold):
        x = inputs[0]
        limit = np.float32(op.limit) if x.is_floating_point() else op.code_limit
        assert limit is not None
        return (x > float(limit) if x.is_floating_point() else x > int(limit)).to(torch.int64)
    if isinstance(op, Quantize):
        return _quantize(op, inputs[0])
    if isinstance(op, Dequantize):
        return inputs[0].to(torch.float32) * float(np.float32(op.scale))
    if isinstance(op, Lookup):
        return _look_up(op, *inputs)
    if graph.output_type(op).is_float:
        return real_operator(op, inputs)
    if isinstance(op, Softmax):
        return _softmax(op, *inputs)
    assert isinstance(op, SumOp)
    assert op.epilogue is not None
    acc = _exact_sum(op, inputs)
    return finish(op.epilogue, acc, op.channel_axis(acc.ndim))


def _exact_sum(op: SumOp, inputs: Sequence[Tensor]) -> Tensor:
    """The sums, int64."""
    if isinstance(op, Conv | ConvTranspose | MatMul | BatchMatMul):
        return _product(op, inputs[0], inputs[1])
    return _SUMS[type(op)](op, inputs)


def _product(op: SumOp, x: Tensor, weights: Tensor) -> Tensor:
    assert op.accumulator is not None
    run = _PRODUCTS[type(op)]
    if op.accumulator.range.magnitude <= EXACT:
        return run(op, x.to(torch.float64), weights.to(torch.float64)).to(torch.int64)
    # Each half of the weights has sums far below 2**53.
    high = weights >> HALF_BITS
    low = weights - (high << HALF_BITS)
    parts = [run(op, x.to(torch.float64), half.to(torch.float64)) for half in (high, low)]
    return (parts[0].to(torch.int64) << HALF_BITS) + parts[1].to(torch.int64)


_PRODUCTS: Mapping[type[Op], Callable[[Any, Tensor, Tensor], Tensor]] = {
    Conv: convolve,
    ConvTranspose: spread_out,
    MatMul: lambda op, x, weights: torch.matmul(x, weights),
    BatchMatMul: lambda op, a, b: torch.matmul(a, b),
}


def _average_pool(op: AveragePool, inputs: Sequence[Tensor]) -> Tensor:
    x = inputs[0]
    spatial = op.infer_shape([tuple(x.shape)])[2:]
    common = op.common_divisor(tuple(x.shape[2:]), spatial)
    return window_sums(op, x) * (common // divisor_grid(op, x))


def _linear_resize(op: LinearResize, inputs: Sequence[Tensor]) -> Tensor:
    return interpolate(op, inputs[0], [taps.integer_weights() for taps in op.taps])


def _div(op: Div, inputs: Sequence[Tensor]) -> Tensor:
    divisor = torch.where(inputs[1] == 0, 1, inputs[1])
    return torch.div(inputs[0] << op.fraction_bits, divisor, rounding_mode="floor")


def _group_norm(op: GroupNorm, inputs: Sequence[Tensor]) -> Tensor:
    """The formula of `NormWidths`; roots and inverses in Python integers."""
    widths = op.widths
    assert widths is not None
    x = inputs[0]
    return _normalised(widths, x.reshape(x.shape[0] * op.groups, -1)).reshape(x.shape)


def _layer_norm(op: LayerNorm, inputs: Sequence[Tensor]) -> Tensor:
    """The same along one axis."""
    assert op.widths is not None
    last = inputs[0].movedim(op.axis, -1)
    rows = _normalised(op.widths, last.reshape(-1, last.shape[-1]))
    return rows.reshape(last.shape).movedim(-1, op.axis)


def _normalised(widths: NormWidths, rows: Tensor) -> Tensor:
    """Rows of codes, each normalised."""
    count = rows.shape[1]
    firsts, seconds = rows.sum(dim=1), (rows * rows).sum(dim=1)
    inverses = []
    for first, second in zip(firsts.tolist(), seconds.tolist(), strict=True):
        variance = count * second - first * first
        root = math.isqrt((variance << (2 * widths.root_bits)) + widths.epsilon)
        inverses.append((1 << widths.inverse_bits) // root)
    inverse = torch.tensor(inverses, dtype=torch.int64, device=rows.device)
    return ((count * rows - firsts[:, None]) * inverse[:, None]) >> widths.drop_bits


def _local_attention(op: LocalAttention2d, inputs: Sequence[Tensor]) -> Tensor:
    """The formula of `AttentionWidths`, in int64."""
    widths = op.widths
    assert widths is not None
    q, k, v, relative = inputs
    batch, _, height, width = q.shape
    keys, values = padded_images(op, k << widths.key_bits), padded_images(op, v)
    offsets = [(y, x) for y in range(op.kernel[0]) for x in range(op.kernel[1])]
    found = []
    for y, x in offsets:
        key = keys[:, :, y : y + height, x : x + width] + relative[:, y, x].reshape(-1, 1, 1)
        found.append((q * key).reshape(batch, op.heads, -1, height, width).sum(2))
    scores = torch.stack(found)
    far = scores.amax(0) - scores + ((1 << widths.index_shift) >> 1)
    table = torch.tensor(widths.powers, dtype=torch.int64, device=q.device)
    powers = table[(far >> widths.index_shift).clamp(max=len(widths.powers) - 1)]
    total = powers.sum(0)
    weights = torch.div(powers * widths.levels + total // 2, total, rounding_mode="floor")
    result = torch.zeros(
        (batch, op.heads, v.shape[1] // op.heads, height, width),
        dtype=torch.int64,
        device=q.device,
    )
    for weight, (y, x) in zip(weights, offsets, strict=True):
        value = values[:, :, y : y + height, x : x + width].reshape(result.shape)
        result = result + value * weight[:, :, None]
    return result.reshape(batch, -1, height, width)


_SUMS: Mapping[type[Op], Accumulator] = {
    Affine: lambda op, inputs: inputs[0] * spread(inputs[1], 1, inputs[0].ndim),
    Rescale: lambda op, inputs: inputs[0],
    Add: lambda op, inputs: op.weights[0] * inputs[0] + op.weights[1] * inputs[1],
    Mul: lambda op, inputs: inputs[0] * inputs[1],
    Div: _div,
    AveragePool: _average_pool,
    ReduceMean: lambda op, inputs: inputs[0].sum(dim=op.axes, keepdim=op.keepdims),
    LinearResize: _linear_resize,
    GroupNorm: _group_norm,
    LayerNorm: _layer_norm,
    LocalAttention2d: _local_attention,
}


def _softmax(op: Softmax, x: Tensor, mask: Tensor | None = None) -> Tensor:
    table = torch.tensor(op.table, dtype=torch.int64, device=x.device)
    takes_part = torch.ones_like(x, dtype=torch.bool) if mask is None else (mask != 0).expand_as(x)
    least = torch.iinfo(torch.int64).min
    largest = torch.where(takes_part, x, least).amax(dim=op.axis, keepdim=True)
    powers = torch.where(takes_part, table[torch.where(takes_part, largest - x, 0)], 0)
    total = powers.sum(dim=op.axis, keepdim=True)
    codes = torch.div(powers * op.levels + total // 2, total.clamp(min=1), rounding_mode="floor")
    return torch.where(takes_part, codes, 0)


def _look_up(op: Lookup, x: Tensor, table: Tensor) -> Tensor:
    index = x - op.lowest
    if table.ndim == 1:
        return table[index]
    rows = spread(torch.arange(x.shape[1], device=x.device), 1, x.ndim)
    return table[rows, index]


def _quantize(op: Quantize, x: Tensor) -> Tensor:
    axis = 1 if x.ndim > 1 else 0
    inverse, offset = (
        spread(torch.tensor(values, dtype=torch.float64, device=x.device), axis, x.ndim)
        for values in (op.inverse, op.offset)
    )
    steps = torch.floor(x.to(torch.float64) * inverse + offset)
    steps = torch.nan_to_num(steps, nan=0.0, posinf=float("inf"), neginf=float("-inf"))
    return torch.clamp(steps, op.low, op.high).to(torch.int64)
