"""Inputs and attributes of the operators outside of ONNX that we know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx import AttributeProto

INT, FLOAT, STRING, INTS = (
    AttributeProto.INT,
    AttributeProto.FLOAT,
    AttributeProto.STRING,
    AttributeProto.INTS,
)


@dataclass(frozen=True, slots=True)
class Schema:
    """Least and largest number of inputs, and the types of attributes; every node has one output.

    Attributes that we do not read may still stand there.
    """

    inputs: tuple[int, int]
    attributes: Mapping[str, int] = field(default_factory=dict)


MICROSOFT = "com.microsoft"
OWN = "qcompile"
"""Where our own operators live."""
QONNX = ("qonnx.custom_op.general", "finn.custom_op.general", "onnx.brevitas")
"""Where Quant and its kin live, from new to old."""

_WINDOW = {
    "auto_pad": STRING,
    "dilations": INTS,
    "kernel_shape": INTS,
    "pads": INTS,
    "strides": INTS,
}
_QUANT = {"signed": INT, "narrow": INT, "rounding_mode": STRING}

SCHEMAS: Mapping[tuple[str, str], Schema] = {
    (MICROSOFT, "QuantizeLinear"): Schema((2, 3), {"axis": INT, "block_size": INT}),
    (MICROSOFT, "DequantizeLinear"): Schema((2, 3), {"axis": INT, "block_size": INT}),
    (MICROSOFT, "QGemm"): Schema((6, 9), {"alpha": FLOAT, "transA": INT, "transB": INT}),
    (MICROSOFT, "QLinearAdd"): Schema((7, 8)),
    (MICROSOFT, "QLinearAveragePool"): Schema(
        (4, 5), {**_WINDOW, "ceil_mode": INT, "channels_last": INT, "count_include_pad": INT}
    ),
    (MICROSOFT, "QLinearConcat"): Schema((5, 1 << 16), {"axis": INT}),
    (MICROSOFT, "QLinearGlobalAveragePool"): Schema((4, 5), {"channels_last": INT}),
    (MICROSOFT, "QLinearLeakyRelu"): Schema((4, 5), {"alpha": FLOAT}),
    (MICROSOFT, "QLinearMul"): Schema((7, 8)),
    (MICROSOFT, "QLinearSigmoid"): Schema((4, 5)),
    (MICROSOFT, "QLinearSoftmax"): Schema((5, 5), {"axis": INT, "opset": INT}),
    (OWN, "LocalAttention2d"): Schema(
        (3, 4), {"heads": INT, "kernel_shape": INTS, "mode": STRING, "pads": INTS, "scale": FLOAT}
    ),
    **{(domain, "Quant"): Schema((4, 4), _QUANT) for domain in QONNX},
    **{(domain, "IntQuant"): Schema((4, 4), _QUANT) for domain in QONNX},
    **{(domain, "BipolarQuant"): Schema((2, 2)) for domain in QONNX},
    **{(domain, "Trunc"): Schema((5, 6), _QUANT) for domain in QONNX},
}
"""Domain and operator -> its schema."""
