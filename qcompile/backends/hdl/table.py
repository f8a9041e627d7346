"""Which planner makes the hardware of each operator, and why the others have none."""

from __future__ import annotations

from collections.abc import Mapping

from qcompile import ops
from qcompile.backends.hdl.attention import LocalAttentionPlanner
from qcompile.backends.hdl.convolution import WeightedPlanner
from qcompile.backends.hdl.elementwise import (
    AffinePlanner,
    ArgMaxPlanner,
    BinaryPlanner,
    LookupPlanner,
    RescalePlanner,
    SoftmaxPlanner,
    ThresholdPlanner,
)
from qcompile.backends.hdl.movement import (
    ConcatPlanner,
    DepthToSpacePlanner,
    GatherPlanner,
    SlicePlanner,
)
from qcompile.backends.hdl.planner import Planner
from qcompile.backends.hdl.pooling import GlobalPlanner, MaxPoolPlanner, TapPlanner
from qcompile.graph import Op

PLANNERS: Mapping[type[Op], Planner] = {
    ops.Conv: WeightedPlanner(),
    ops.ConvTranspose: WeightedPlanner(),
    ops.MatMul: WeightedPlanner(),
    ops.Affine: AffinePlanner(),
    ops.Rescale: RescalePlanner(),
    ops.Add: BinaryPlanner(),
    ops.Mul: BinaryPlanner(),
    ops.MaxPool: MaxPoolPlanner(),
    ops.AveragePool: TapPlanner(),
    ops.LinearResize: TapPlanner(),
    ops.ReduceMean: GlobalPlanner(),
    ops.LocalAttention2d: LocalAttentionPlanner(),
    ops.NearestResize: GatherPlanner(),
    ops.Pad: GatherPlanner(),
    ops.Slice: SlicePlanner(),
    ops.Concat: ConcatPlanner(),
    ops.DepthToSpace: DepthToSpacePlanner(),
    ops.Lookup: LookupPlanner(),
    ops.ArgMax: ArgMaxPlanner(),
    ops.Softmax: SoftmaxPlanner(),
    ops.Threshold: ThresholdPlanner(),
}
"""The operators that become blocks."""

_WHOLE_FRAME = "needs the whole map before its first result, which a stream does not keep"
_FUNCTION = "has no table: its input has more than 12 bits, or it is part of a float island"

REFUSED: Mapping[type[Op], tuple[str, str]] = {
    ops.GroupNorm: (_WHOLE_FRAME, "train with batch norm, or use --target c"),
    ops.MaxPoolIndex: (
        "says where maxima are, which has no block",
        "use Resize or ConvTranspose instead of MaxUnpool, or --target c",
    ),
    ops.MaxUnpool: (
        "puts maxima back where they were, which has no block",
        "use Resize or ConvTranspose instead, or --target c",
    ),
    ops.BatchMatMul: (
        "multiplies two computed tensors, which a stream does not keep",
        "attend to windows (LocalAttention2d), or use --target c",
    ),
    ops.LayerNorm: (
        "divides by a deviation, which has no block",
        "train with batch norm, or use --target c",
    ),
    ops.Gather: ("picks pixels by a list", "remove it from the model, or use --target c"),
    ops.MaskedFill: ("sets elements by a mask, which has no block", "use --target c"),
    ops.Div: ("divides by a computed tensor, which has no block", "use --target c"),
    ops.Transpose: ("moves axes", "remove it from the model, or use --target c"),
    ops.Reshape: ("moves pixels between axes", "remove it from the model, or use --target c"),
    ops.Sigmoid: (_FUNCTION, "use --abits 12 or less"),
    ops.HardSigmoid: (_FUNCTION, "use --abits 12 or less"),
    ops.HardSwish: (_FUNCTION, "use --abits 12 or less"),
    ops.Silu: (_FUNCTION, "use --abits 12 or less"),
    ops.Tanh: (_FUNCTION, "use --abits 12 or less"),
    ops.TernaryTanh: (_FUNCTION, "use --abits 12 or less, or --ternary-tanh hard"),
    ops.Steps: (_FUNCTION, "use --abits 12 or less"),
    ops.Elu: (_FUNCTION, "use --abits 12 or less"),
    ops.Softplus: (_FUNCTION, "use --abits 12 or less"),
    ops.Exp: (_FUNCTION, "use --abits 12 or less"),
    ops.Gelu: (_FUNCTION, "use --abits 12 or less"),
    ops.Erf: (_FUNCTION, "use --abits 12 or less"),
    ops.Sqrt: (_FUNCTION, "use --abits 12 or less"),
    ops.Quantize: ("takes floats inside the network", "use --abits below 32"),
    ops.Dequantize: ("makes floats inside the network", "use --abits below 32"),
}
"""Operator -> why hardware has none, and a way out."""
