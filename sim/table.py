"""The complete list of the simulator's kernels, one row an operator."""

from __future__ import annotations

from collections.abc import Mapping

from qcompile import ops
from qcompile.graph import Op
from qcompile.sim import (
    add,
    affine,
    arg_max,
    average_pool,
    concat,
    conv,
    conv_transpose,
    depth_to_space,
    dequantize,
    div,
    group_norm,
    linear_resize,
    lookup,
    matmul,
    max_pool,
    mul,
    nearest_resize,
    pad,
    pointwise,
    quantize,
    reduce_mean,
    rescale,
    reshape,
    slice,
    softmax,
    transpose,
)
from qcompile.sim.kernel import Kernel

KERNELS: Mapping[type[Op], Kernel] = {
    ops.Conv: Kernel(conv.run_float, conv.run_integer),
    ops.ConvTranspose: Kernel(conv_transpose.run_float, conv_transpose.run_integer),
    ops.MatMul: Kernel(matmul.run_float, matmul.run_integer),
    ops.Affine: Kernel(affine.run_float, affine.run_integer),
    ops.Rescale: Kernel(rescale.run_float, rescale.run_integer),
    ops.Add: Kernel(add.run_float, add.run_integer),
    ops.Mul: Kernel(mul.run_float, mul.run_integer),
    ops.Div: Kernel(div.run_float, div.run_integer),
    ops.AveragePool: Kernel(average_pool.run_float, average_pool.run_integer),
    ops.ReduceMean: Kernel(reduce_mean.run_float, reduce_mean.run_integer),
    ops.LinearResize: Kernel(linear_resize.run_float, linear_resize.run_integer),
    ops.GroupNorm: Kernel(group_norm.run_float, group_norm.run_integer),
    ops.MaxPool: Kernel(max_pool.run, max_pool.run),
    ops.NearestResize: Kernel(nearest_resize.run, nearest_resize.run),
    ops.Concat: Kernel(concat.run, concat.run),
    ops.Pad: Kernel(pad.run, pad.run),
    ops.Slice: Kernel(slice.run, slice.run),
    ops.Transpose: Kernel(transpose.run, transpose.run),
    ops.Reshape: Kernel(reshape.run, reshape.run),
    ops.DepthToSpace: Kernel(depth_to_space.run, depth_to_space.run),
    ops.Softmax: Kernel(softmax.run_float, softmax.run_integer),
    ops.ArgMax: Kernel(arg_max.run, arg_max.run),
    ops.Sigmoid: Kernel(pointwise.run_float, None),
    ops.HardSigmoid: Kernel(pointwise.run_float, None),
    ops.HardSwish: Kernel(pointwise.run_float, None),
    ops.Silu: Kernel(pointwise.run_float, None),
    ops.Tanh: Kernel(pointwise.run_float, None),
    ops.Elu: Kernel(pointwise.run_float, None),
    ops.Softplus: Kernel(pointwise.run_float, None),
    ops.Exp: Kernel(pointwise.run_float, None),
    ops.Lookup: Kernel(lookup.run, lookup.run),
    ops.Quantize: Kernel(None, quantize.run_integer),
    ops.Dequantize: Kernel(dequantize.run_float, None),
}
