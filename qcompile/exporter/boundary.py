"""The network's inputs: the model's own floats, or pixels."""

from __future__ import annotations

from qcompile.boundary import InputKind, InputSpec, channel_axis
from qcompile.exporter.dialect import Dialect
from qcompile.exporter.writer import Writer
from qcompile.types import Array, TensorType, per_channel


def emit_input(
    writer: Writer, dialect: Dialect, name: str, kind: TensorType, spec: InputSpec, pixels: bool
) -> str:
    """The nodes between an input of the model and its first readers; returns their value.

    Args:
        writer: of the model.
        dialect: of the model.
        name: of the input.
        kind: type of the input in the quantized graph.
        spec: what pixels mean.
        pixels: the model takes uint8, instead of the float input of the original network.
    """
    real = name
    if pixels and spec.kind is InputKind.UINT8:
        real = _normalise(writer, name, kind, spec)
    if kind.is_float:
        return real
    target = writer.fresh(f"{name}.quantized")
    dialect.quantize(writer, name, real, target, kind)
    return target


def _normalise(writer: Writer, name: str, kind: TensorType, spec: InputSpec) -> str:
    """(pixel * scale - mean) / std, in float32."""
    real = writer.add("Cast", (name,), writer.fresh(f"{name}.float"), f"{name}/float", to=1)
    axis = channel_axis(kind.shape)
    for operator, part, values, neutral in (
        ("Mul", "scale", spec.scale, (1.0,)),
        ("Sub", "mean", spec.mean, (0.0,)),
        ("Div", "std", spec.std, (1.0,)),
    ):
        if values != neutral:
            data: Array = per_channel(values, "float32", axis, kind.rank)
            vector = writer.constant(f"{name}.{part}", data if len(values) > 1 else data.ravel())
            real = writer.add(
                operator, (real, vector), writer.fresh(f"{name}.{part}ed"), f"{name}/{part}"
            )
    return real
