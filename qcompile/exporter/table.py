"""Which function exports which operator. `Lookup`, `Quantize` and `Dequantize` exist only after
lowering, so no quantized graph has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qcompile import ops
from qcompile.exporter.operators import attention, functions, movement, resize, sums, windows
from qcompile.exporter.scope import Scope
from qcompile.graph import Op

Emitter = Callable[[Any, Scope], str]

EMITTERS: Mapping[type[Op], Emitter] = {
    ops.Conv: sums.conv,
    ops.ConvTranspose: sums.conv_transpose,
    ops.MatMul: sums.matmul,
    ops.BatchMatMul: sums.batch_matmul,
    ops.Affine: sums.affine,
    ops.Rescale: sums.rescale,
    ops.Add: sums.add,
    ops.Mul: sums.mul,
    ops.Div: sums.div,
    ops.AveragePool: windows.average_pool,
    ops.ReduceMean: windows.reduce_mean,
    ops.LinearResize: resize.linear_resize,
    ops.GroupNorm: windows.group_norm,
    ops.LayerNorm: windows.layer_norm,
    ops.LocalAttention2d: attention.local_attention,
    ops.MaxPool: windows.max_pool,
    ops.MaxPoolIndex: windows.max_pool_index,
    ops.MaxUnpool: windows.max_unpool,
    ops.NearestResize: resize.nearest_resize,
    ops.Concat: movement.concat,
    ops.Pad: movement.pad,
    ops.Slice: movement.slice_,
    ops.Gather: movement.gather,
    ops.MaskedFill: movement.masked_fill,
    ops.Transpose: movement.transpose,
    ops.Reshape: movement.reshape,
    ops.DepthToSpace: movement.depth_to_space,
    ops.Softmax: functions.softmax,
    ops.ArgMax: functions.arg_max,
    ops.Threshold: functions.threshold,
    ops.Sigmoid: functions.same_name,
    ops.HardSigmoid: functions.hard_sigmoid,
    ops.HardSwish: functions.same_name,
    ops.Silu: functions.silu,
    ops.Tanh: functions.same_name,
    ops.TernaryTanh: functions.ternary_tanh,
    ops.Steps: functions.steps,
    ops.Elu: functions.elu,
    ops.Softplus: functions.same_name,
    ops.Exp: functions.same_name,
    ops.Gelu: functions.gelu,
    ops.Erf: functions.same_name,
    ops.Sqrt: functions.same_name,
}
