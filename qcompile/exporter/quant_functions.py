"""Quant and BipolarQuant as ONNX functions: what makes a QONNX model run in onnxruntime.

They are added to a copy for shape inference and verification; files have no need of them.
"""

from __future__ import annotations

import onnx
from onnx import parser

from qcompile.exporter.qonnx import DOMAIN

_QUANT = """
<domain: "qonnx.custom_op.general", opset_import: ["" : 17]>
Quant <signed: int, narrow: int, rounding_mode: string>(x, scale, zero, bits) => (y)
{
    signed_integer = Constant <value_int: int = @signed>()
    narrow_integer = Constant <value_int: int = @narrow>()
    is_signed = CastLike(signed_integer, bits)
    is_narrow = CastLike(narrow_integer, bits)
    one = Constant <value_float = 1.0>()
    two = Constant <value_float = 2.0>()
    magnitude_bits = Sub(bits, is_signed)
    levels = Pow(two, magnitude_bits)
    highest = Sub(levels, one)
    negative = Neg(levels)
    wide_lowest = Add(negative, is_narrow)
    lowest = Mul(wide_lowest, is_signed)
    unsigned = Sub(one, is_signed)
    unused = Mul(is_narrow, unsigned)
    top = Sub(highest, unused)
    steps = Div(x, scale)
    shifted = Add(steps, zero)
    above = Max(shifted, lowest)
    inside = Min(above, top)
    codes = Round(inside)
    centred = Sub(codes, zero)
    y = Mul(centred, scale)
}
"""

_BIPOLAR = """
<domain: "qonnx.custom_op.general", opset_import: ["" : 17]>
BipolarQuant (x, scale) => (y)
{
    zero = Constant <value_float = 0.0>()
    one = Constant <value_float = 1.0>()
    minus = Neg(one)
    positive = GreaterOrEqual(x, zero)
    sign = Where(positive, one, minus)
    y = Mul(sign, scale)
}
"""


def with_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that defines the QONNX operators it uses; the same model where it uses none.

    Rounding is half to even, the only mode we write.
    """
    if not any(item.domain == DOMAIN for item in model.opset_import):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.functions.extend(parser.parse_function(text) for text in (_QUANT, _BIPOLAR))
    return result
