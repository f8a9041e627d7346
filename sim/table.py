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
    div,
    group_norm,
    linear_resize,
    matmul,
    max_pool,
    mul,
    nearest_resize,
    pad,
    pointwise,
    reduce_mean,
    rescale,
    reshape,
    slice,
    softmax,
    transpose,
)
from qcompile.sim.kernel import Kernel

KERNELS: Mapping[type[Op], Kernel] = {
    ops.Conv: Kernel(conv.run_float, None),
    ops.ConvTranspose: Kernel(conv_transpose.run_float, None),
    ops.MatMul: Kernel(matmul.run_float, None),
    ops.Affine: Kernel(affine.run_float, None),
    ops.Rescale: Kernel(rescale.run_float, None),
    ops.Add: Kernel(add.run_float, None),
    ops.Mul: Kernel(mul.run_float, None),
    ops.Div: Kernel(div.run_float, None),
    ops.AveragePool: Kernel(average_pool.run_float, None),
    ops.ReduceMean: Kernel(reduce_mean.run_float, None),
    ops.LinearResize: Kernel(linear_resize.run_float, None),
    ops.GroupNorm: Kernel(group_norm.run_float, None),
    ops.MaxPool: Kernel(max_pool.run, max_pool.run),
    ops.NearestResize: Kernel(nearest_resize.run, nearest_resize.run),
    ops.Concat: Kernel(concat.run, concat.run),
    ops.Pad: Kernel(pad.run, pad.run),
    ops.Slice: Kernel(slice.run, slice.run),
    ops.Transpose: Kernel(transpose.run, transpose.run),
    ops.Reshape: Kernel(reshape.run, reshape.run),
    ops.DepthToSpace: Kernel(depth_to_space.run, depth_to_space.run),
    ops.Softmax: Kernel(softmax.run_float, None),
    ops.ArgMax: Kernel(arg_max.run, arg_max.run),
    ops.Sigmoid: Kernel(pointwise.run_float, None),
    ops.HardSigmoid: Kernel(pointwise.run_float, None),
    ops.HardSwish: Kernel(pointwise.run_float, None),
    ops.Silu: Kernel(pointwise.run_float, None),
    ops.Tanh: Kernel(pointwise.run_float, None),
    ops.Elu: Kernel(pointwise.run_float, None),
    ops.Softplus: Kernel(pointwise.run_float, None),
    ops.Exp: Kernel(pointwise.run_float, None),
    # The three below exist in the integer stage only; their kernels say what they read and write.
    ops.Lookup: Kernel(None, None),
    ops.Quantize: Kernel(None, None),
    ops.Dequantize: Kernel(None, None),
}
