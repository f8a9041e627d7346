"""The operators of the intermediate representation, one file each.

`OPERATORS` is the complete list; the completeness test compares it with the importer, the
simulator, the C templates and the test cases.
"""

from __future__ import annotations

from qcompile.graph import Op
from qcompile.ops.activation import IDENTITY, RELU, Activation
from qcompile.ops.add import Add
from qcompile.ops.affine import Affine
from qcompile.ops.arg_max import ArgMax
from qcompile.ops.average_pool import AveragePool
from qcompile.ops.batch_matmul import BatchMatMul
from qcompile.ops.concat import Concat
from qcompile.ops.conv import Conv
from qcompile.ops.conv_transpose import ConvTranspose
from qcompile.ops.depth_to_space import DepthToSpace
from qcompile.ops.dequantize import Dequantize
from qcompile.ops.div import Div
from qcompile.ops.elu import Elu
from qcompile.ops.erf import Erf
from qcompile.ops.exp import Exp
from qcompile.ops.fake_quantize import FakeQuantize
from qcompile.ops.gather import Gather
from qcompile.ops.gelu import Gelu
from qcompile.ops.group_norm import GroupNorm, NormWidths
from qcompile.ops.hard_sigmoid import HardSigmoid
from qcompile.ops.hard_swish import HardSwish
from qcompile.ops.layer_norm import LayerNorm
from qcompile.ops.linear_resize import LinearResize, LinearTaps
from qcompile.ops.local_attention2d import AttentionWidths, LocalAttention2d
from qcompile.ops.lookup import Lookup
from qcompile.ops.masked_fill import MaskedFill
from qcompile.ops.matmul import MatMul
from qcompile.ops.max_pool import MaxPool
from qcompile.ops.max_pool_index import MaxPoolIndex
from qcompile.ops.max_unpool import MaxUnpool
from qcompile.ops.mul import Mul
from qcompile.ops.nearest_resize import NearestResize
from qcompile.ops.pad import Pad, PadMode
from qcompile.ops.pointwise import Pointwise
from qcompile.ops.quantize import Quantize
from qcompile.ops.reduce_mean import ReduceMean
from qcompile.ops.rescale import Rescale
from qcompile.ops.reshape import Reshape
from qcompile.ops.sigmoid import Sigmoid
from qcompile.ops.silu import Silu
from qcompile.ops.slice import Slice
from qcompile.ops.softmax import Softmax
from qcompile.ops.softplus import Softplus
from qcompile.ops.sqrt import Sqrt
from qcompile.ops.steps import Steps
from qcompile.ops.sum_op import SumOp
from qcompile.ops.tanh import Tanh
from qcompile.ops.ternary_tanh import TernaryTanh
from qcompile.ops.threshold import Threshold
from qcompile.ops.transpose import Transpose

OPERATORS: tuple[type[Op], ...] = (
    Conv,
    ConvTranspose,
    MatMul,
    BatchMatMul,
    Affine,
    Rescale,
    Add,
    Mul,
    Div,
    AveragePool,
    ReduceMean,
    LinearResize,
    GroupNorm,
    LayerNorm,
    LocalAttention2d,
    MaxPool,
    MaxPoolIndex,
    MaxUnpool,
    NearestResize,
    Concat,
    Pad,
    Slice,
    Gather,
    MaskedFill,
    Transpose,
    Reshape,
    DepthToSpace,
    Softmax,
    ArgMax,
    Threshold,
    Sigmoid,
    HardSigmoid,
    HardSwish,
    Silu,
    Tanh,
    TernaryTanh,
    Steps,
    Elu,
    Softplus,
    Exp,
    Gelu,
    Erf,
    Sqrt,
    Lookup,
    Quantize,
    Dequantize,
)

ANNOTATIONS: tuple[type[Op], ...] = (FakeQuantize,)
"""What imported models say of their values; gone before quantization, so no back end has them."""

POINTWISE: tuple[type[Pointwise], ...] = (
    Sigmoid,
    HardSigmoid,
    HardSwish,
    Silu,
    Tanh,
    TernaryTanh,
    Steps,
    Elu,
    Softplus,
    Exp,
    Gelu,
    Erf,
    Sqrt,
)

MOVEMENT: tuple[type[Op], ...] = (
    MaxPool,
    MaxUnpool,
    NearestResize,
    Concat,
    Pad,
    Slice,
    Gather,
    MaskedFill,
    Transpose,
    Reshape,
    DepthToSpace,
)
"""Operators that copy or select codes: input and output share one quantization."""

INDICES: tuple[type[Op], ...] = (ArgMax, MaxPoolIndex, Threshold)
"""Operators whose output is integer by nature, in every stage: it has no scale."""

WEIGHTED: tuple[type[Op], ...] = (Conv, ConvTranspose, MatMul)
"""Operators with a matrix of trained weights as their second input."""

__all__ = [
    "ANNOTATIONS",
    "IDENTITY",
    "INDICES",
    "MOVEMENT",
    "OPERATORS",
    "POINTWISE",
    "RELU",
    "WEIGHTED",
    "Activation",
    "Add",
    "Affine",
    "ArgMax",
    "AttentionWidths",
    "AveragePool",
    "BatchMatMul",
    "Concat",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "Dequantize",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "FakeQuantize",
    "Gather",
    "Gelu",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "LayerNorm",
    "LinearResize",
    "LinearTaps",
    "LocalAttention2d",
    "Lookup",
    "MaskedFill",
    "MatMul",
    "MaxPool",
    "MaxPoolIndex",
    "MaxUnpool",
    "Mul",
    "NearestResize",
    "NormWidths",
    "Op",
    "Pad",
    "PadMode",
    "Pointwise",
    "Quantize",
    "ReduceMean",
    "Rescale",
    "Reshape",
    "Sigmoid",
    "Silu",
    "Slice",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Steps",
    "SumOp",
    "Tanh",
    "TernaryTanh",
    "Threshold",
    "Transpose",
]
