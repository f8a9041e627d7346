"""Which planner writes the C of each operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from qcompile import ops
from qcompile.backends.c import elementwise, layers, movement, movement_planes, reductions
from qcompile.backends.c.batch_matmul import plan_batch_matmul
from qcompile.backends.c.context import Context
from qcompile.backends.c.conv_planes import plan_conv_planes
from qcompile.backends.c.local_attention import plan_local_attention
from qcompile.backends.c.program import Step
from qcompile.graph import Op

Plan = Callable[[Context, Step, Any], None]
"""plan(context, step, op): fills the step."""


@dataclass(frozen=True, slots=True)
class Row:
    """How C computes one operator.

    Attributes:
        plan: fills the operator's step.
        templates: the kernel templates it may use, for the completeness test.
        longest_rank: the most axes its kernels walk.
        reason: what the kernels cannot do beyond that rank.
    """

    plan: Plan
    templates: tuple[str, ...]
    longest_rank: int
    reason: str


IMAGE = "3-D images are not yet supported in C"
LOOPS = "has more axes than the C kernels walk"


def _image(plan: Plan, *templates: str) -> Row:
    return Row(plan, templates, 4, IMAGE)


def _strided(plan: Plan, *templates: str, rank: int = 6) -> Row:
    return Row(plan, templates, rank, LOOPS)


def _float(template: str) -> Row:
    return Row(elementwise.plan_pointwise, (template,), 8, LOOPS)


PLANNERS: Mapping[type[Op], Row] = {
    ops.Conv: _image(layers.plan_conv, "head_planes", "conv", "conv_depthwise", "conv_joined"),
    ops.ConvTranspose: _image(layers.plan_conv_transpose, "conv_transpose"),
    ops.MatMul: _strided(layers.plan_matmul, "matmul"),
    ops.BatchMatMul: _strided(plan_batch_matmul, "batch_matmul"),
    ops.Affine: _strided(elementwise.plan_affine, "affine"),
    ops.Rescale: _strided(elementwise.plan_rescale, "rescale"),
    ops.Add: _strided(elementwise.plan_sum, "add", rank=5),
    ops.Mul: _strided(elementwise.plan_sum, "mul", rank=5),
    ops.Div: _strided(elementwise.plan_sum, "div", rank=5),
    ops.AveragePool: _image(reductions.plan_average_pool, "average_pool"),
    ops.ReduceMean: _strided(reductions.plan_reduce_mean, "reduce_mean", rank=5),
    ops.LinearResize: _image(reductions.plan_linear_resize, "linear_resize"),
    ops.GroupNorm: _strided(reductions.plan_group_norm, "group_norm", "group_norm_float"),
    ops.LayerNorm: _strided(reductions.plan_layer_norm, "layer_norm", "layer_norm_float"),
    ops.LocalAttention2d: _image(
        plan_local_attention,
        "local_attention",
        "local_attention_channels",
        "local_attention_rows",
        "local_attention_float",
    ),
    ops.MaxPool: _image(movement.plan_max_pool, "max_pool", "max_pool_tiles"),
    ops.MaxPoolIndex: _image(movement.plan_max_pool_index, "max_pool_index"),
    ops.MaxUnpool: _image(movement.plan_max_unpool, "max_unpool"),
    ops.NearestResize: _image(movement.plan_nearest_resize, "nearest_resize"),
    ops.Concat: _strided(movement.plan_concat, "strided_copy"),
    ops.Pad: _strided(movement.plan_pad, "pad", "strided_copy"),
    ops.Slice: _strided(movement.plan_slice, "strided_copy"),
    ops.Gather: _strided(movement.plan_gather, "take"),
    ops.MaskedFill: _strided(movement.plan_masked_fill, "masked_fill"),
    ops.Transpose: _strided(movement.plan_transpose, "strided_copy"),
    ops.Reshape: _strided(movement.plan_reshape, "strided_copy"),
    ops.DepthToSpace: _strided(movement.plan_depth_to_space, "strided_copy"),
    ops.Softmax: _strided(reductions.plan_softmax, "softmax", "softmax_float"),
    ops.ArgMax: _strided(reductions.plan_arg_max, "arg_max"),
    ops.Sigmoid: _float("sigmoid"),
    ops.HardSigmoid: _float("hard_sigmoid"),
    ops.HardSwish: _float("hard_swish"),
    ops.Silu: _float("silu"),
    ops.Tanh: _float("tanh"),
    ops.TernaryTanh: _float("ternary_tanh"),
    ops.Steps: _float("steps"),
    ops.Elu: _float("elu"),
    ops.Softplus: _float("softplus"),
    ops.Exp: _float("exp"),
    ops.Gelu: _float("gelu"),
    ops.Erf: _float("erf"),
    ops.Sqrt: _float("sqrt"),
    ops.Lookup: _strided(elementwise.plan_lookup, "lookup", rank=5),
    ops.Threshold: _strided(elementwise.plan_threshold, "threshold", "threshold_rows", rank=4),
    ops.Quantize: _strided(elementwise.plan_quantize, "quantize", rank=5),
    ops.Dequantize: _strided(elementwise.plan_dequantize, "dequantize", rank=4),
}
"""Every operator of `qcompile.ops`, once."""

PLANE_PLANNERS: Mapping[type[Op], Row] = {
    ops.Conv: _image(plan_conv_planes, "conv_planes", "gather_planes", "list_planes"),
    ops.ConvTranspose: _image(plan_conv_planes, "conv_planes", "gather_planes", "list_planes"),
    ops.MaxPool: _image(movement_planes.plan_pool_planes, "pool_planes", "plane_rows"),
    ops.NearestResize: _image(movement_planes.plan_resize_planes, "resize_planes", "plane_rows"),
    ops.Concat: _image(movement_planes.plan_concat_planes, "concat_planes"),
}
"""Those of operators that read and write bit planes."""
