"""Every ONNX operator the importer converts; constants are folded before this table is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.importer.operators import (
    activations,
    arithmetic,
    comparisons,
    conv,
    conv_transpose,
    layout,
    local_attention,
    matmul,
    norm,
    pad,
    pointwise,
    pool,
    pool_indices,
    q_operators,
    qonnx,
    quantize,
    reduce,
    resize,
    slice,
    values,
)

Converter = Callable[[Node, Builder], None]
"""Adds the operators of one node, or says what its output is; raises what `Node.refuse` raises."""

DEFAULT_ADVICE = "replace it by supported ones (--list-ops)"

ADVICE: Mapping[str, str] = {
    **dict.fromkeys(
        ("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger"),
        "dynamic quantisation finds scales at run time; quantise statically (quantize_static)",
    ),
    "LayerNormalization": "use InstanceNormalization or GroupNormalization",
}
"""What to do about operators that are not supported, where there is a better hint."""

CONVERTERS: Mapping[str, Converter] = {
    "Abs": activations.convert_abs,
    "Add": arithmetic.convert_add,
    "And": comparisons.convert_and,
    "ArgMax": reduce.convert_arg_max,
    "AveragePool": pool.convert_average_pool,
    "BatchNormalization": norm.convert_batch_normalization,
    "BipolarQuant": qonnx.convert_bipolar_quant,
    "Cast": values.convert_cast,
    "Clip": activations.convert_clip,
    "Concat": layout.convert_concat,
    "Constant": values.convert_constant,
    "Conv": conv.convert_conv,
    "ConvTranspose": conv_transpose.convert_conv_transpose,
    "DepthToSpace": layout.convert_depth_to_space,
    "DequantizeLinear": quantize.convert_dequantize_linear,
    "Div": arithmetic.convert_div,
    "Dropout": layout.convert_dropout,
    "Elu": pointwise.convert_elu,
    "Exp": pointwise.convert_exp,
    "Expand": layout.convert_expand,
    "Flatten": layout.convert_flatten,
    "Gather": slice.convert_gather,
    "Gemm": matmul.convert_gemm,
    "GlobalAveragePool": pool.convert_global_average_pool,
    "GlobalMaxPool": pool.convert_global_max_pool,
    "Greater": comparisons.convert_greater,
    "GreaterOrEqual": comparisons.convert_greater_or_equal,
    "GroupNormalization": norm.convert_group_normalization,
    "HardSigmoid": pointwise.convert_hard_sigmoid,
    "HardSwish": pointwise.convert_hard_swish,
    "Identity": layout.convert_identity,
    "InstanceNormalization": norm.convert_instance_normalization,
    "IntQuant": qonnx.convert_quant,
    "LeakyRelu": activations.convert_leaky_relu,
    "Less": comparisons.convert_less,
    "LessOrEqual": comparisons.convert_less_or_equal,
    "LocalAttention2d": local_attention.convert_local_attention,
    "MatMul": matmul.convert_matmul,
    "Max": activations.convert_maximum,
    "MaxPool": pool.convert_max_pool,
    "MaxUnpool": pool_indices.convert_max_unpool,
    "Min": activations.convert_minimum,
    "Mul": arithmetic.convert_mul,
    "Neg": activations.convert_neg,
    "Not": comparisons.convert_not,
    "Or": comparisons.convert_or,
    "PRelu": activations.convert_prelu,
    "Pad": pad.convert_pad,
    "Pow": arithmetic.convert_pow,
    "QGemm": q_operators.convert_qgemm,
    "QLinearAdd": q_operators.convert_qlinear_add,
    "QLinearAveragePool": q_operators.convert_qlinear_average_pool,
    "QLinearConcat": q_operators.convert_qlinear_concat,
    "QLinearConv": q_operators.convert_qlinear_conv,
    "QLinearGlobalAveragePool": q_operators.convert_qlinear_global_average_pool,
    "QLinearLeakyRelu": q_operators.convert_qlinear_leaky_relu,
    "QLinearMatMul": q_operators.convert_qlinear_matmul,
    "QLinearMul": q_operators.convert_qlinear_mul,
    "QLinearSigmoid": q_operators.convert_qlinear_sigmoid,
    "QLinearSoftmax": q_operators.convert_qlinear_softmax,
    "Quant": qonnx.convert_quant,
    "QuantizeLinear": quantize.convert_quantize_linear,
    "ReduceMean": reduce.convert_reduce_mean,
    "Relu": activations.convert_relu,
    "Reshape": layout.convert_reshape,
    "Resize": resize.convert_resize,
    "Shape": values.convert_shape,
    "Sigmoid": pointwise.convert_sigmoid,
    "Sign": comparisons.convert_sign,
    "Size": values.convert_size,
    "Slice": slice.convert_slice,
    "Softmax": reduce.convert_softmax,
    "Softplus": pointwise.convert_softplus,
    "SpaceToDepth": layout.convert_space_to_depth,
    "Split": slice.convert_split,
    "Squeeze": layout.convert_squeeze,
    "Sub": arithmetic.convert_sub,
    "Sum": arithmetic.convert_sum,
    "Swish": pointwise.convert_swish,
    "Tanh": pointwise.convert_tanh,
    "Transpose": layout.convert_transpose,
    "Trunc": qonnx.convert_trunc,
    "Unsqueeze": layout.convert_unsqueeze,
    "Upsample": resize.convert_upsample,
    "Where": comparisons.convert_where,
}

QUANTIZED = frozenset(
    {"DequantizeLinear", *(name for name in CONVERTERS if name.startswith(("QGemm", "QLinear")))}
)
"""Operators that read codes and know what they stand for."""
