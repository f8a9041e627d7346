"""Lowering: the quantized graph becomes exact integer sums, tables and order operators.

    %y u6 s=0.03 = Conv(%x u6, @w i4n, @bias f32) relu
        ->
    %y u6 = Conv(%x, @w) acc i17, (acc * m[c] + b[c]) >> s, clamp 0..63

Pixels enter through a table (or as they are), results leave through one multiplication. Operators
whose output or weights stay float form islands between Dequantize and Quantize.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from qcompile.boundary import InputKind, InputSpec, channel_axis, channels
from qcompile.errors import GraphError
from qcompile.graph import Graph, Op, Stage, live_ops, sorted_ops
from qcompile.lowering.few_levels import imported_or_made
from qcompile.lowering.islands import stays_float
from qcompile.lowering.published import PublishedEpilogue, published_epilogue, published_format
from qcompile.lowering.sums import exact_sum, scale_of
from qcompile.lowering.tables import boundary_offset, exp_table, function_table, rounded_codes
from qcompile.numerics import Requantize
from qcompile.ops import (
    INDICES,
    MOVEMENT,
    Affine,
    Dequantize,
    Lookup,
    MaskedFill,
    MaxPoolIndex,
    Pad,
    Pointwise,
    Quantize,
    Softmax,
    SumOp,
    Threshold,
    Transpose,
)
from qcompile.ops.code_limits import fill_code, moved_inputs, moved_limits, pad_code
from qcompile.passes.imported_formats import is_ternary
from qcompile.types import (
    FLOAT32,
    MASK,
    UINT8,
    Array,
    IntType,
    Quantization,
    TensorType,
)

MAX_ACCUMULATOR_BITS = 63
INT64 = IntType(64).range


@dataclass(frozen=True)
class LowerToInteger:
    """From stage QUANTIZED to stage INTEGER."""

    name: ClassVar[str] = "lower-to-integer"
    inputs: Mapping[str, InputSpec]

    def run(self, graph: Graph) -> Graph:
        return _Lowering(graph, self.inputs).run()


class _Lowering:
    """Builds the integer graph; `codes` and `reals` say which new value holds each old one."""

    def __init__(self, graph: Graph, inputs: Mapping[str, InputSpec]) -> None:
        self.graph = graph
        self.specs = inputs
        self.ops: list[Op] = []
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}
        self.codes: dict[str, str] = {}
        self.reals: dict[str, str] = {}
        self.names = set(graph.types) | {op.name for op in graph.ops}

    def run(self) -> Graph:
        for name in self.graph.inputs:
            self._lower_input(name)
        for op in self.graph.ops:
            if stays_float(self.graph, op):
                self._keep_float(op)
            else:
                self._lower(op)
        for value in self.graph.outputs:
            self._finish_output(value)
        ops = live_ops(sorted_ops(self.ops, self.graph.name), self.graph.outputs)
        used = {value for op in ops for value in (*op.inputs, *op.outputs)}
        used |= set(self.graph.inputs) | set(self.graph.outputs)
        return Graph(
            self.graph.name,
            Stage.INTEGER,
            self.graph.inputs,
            self.graph.outputs,
            ops,
            {value: kind.settled() for value, kind in self.types.items() if value in used},
            {value: data for value, data in self.constants.items() if value in used},
        )

    def _fresh(self, base: str) -> str:
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}.{count}"
        self.names.add(name)
        return name

    def _constant(self, base: str, data: Array, kind: TensorType) -> str:
        name = self._fresh(base)
        self.constants[name] = data
        self.types[name] = kind
        return name

    def _emit(self, op: Op, kind: TensorType) -> str:
        self.ops.append(op)
        self.types[op.output] = kind
        return op.output

    # Boundaries -----------------------------------------------------------------------------

    def _lower_input(self, name: str) -> None:
        kind = self.graph.types[name]
        spec = self.specs[name]
        if spec.kind is InputKind.FLOAT32:
            self.types[name] = TensorType(kind.shape, FLOAT32)
            self.reals[name] = name
            if not kind.is_float:
                self.codes[name] = self._quantize(name, kind)
            return
        pixels = Quantization.per_tensor(spec.scale[0]) if spec.is_plain else None
        self.types[name] = TensorType(kind.shape, UINT8, pixels)
        if kind.is_float:
            # The pixel's own number; what it stands for is up to the operators behind.
            self.types[name] = TensorType(kind.shape, UINT8, pixels or Quantization.per_tensor(1.0))
            self._float_pixels(name, kind, spec)
            return
        kind, element = _alike(kind), kind.integer
        table = rounded_codes(spec.pixel_values(), scale_of(self.graph, name), kind)
        if element.storage == np.uint8 and (table == np.arange(256)).all():
            # What the user passes is limited by its element alone.
            self.types[name] = dataclasses.replace(kind, limits=None)
            self.codes[name] = name
            return
        data = table[0] if len(table) == 1 else table
        constant = self._constant(f"{name}.table", data, TensorType(data.shape, element))

        def look_up(pixels: str) -> str:
            codes = self._fresh(f"{name}.codes")
            op = Lookup(
                name=self._fresh(f"{name}/pixels"), inputs=(pixels, constant), outputs=(codes,)
            )
            return self._emit(op, dataclasses.replace(kind, shape=self.types[pixels].shape))

        self.codes[name] = self._by_channel(name, look_up) if data.ndim > 1 else look_up(name)

    def _by_channel(self, value: str, compute: Callable[[str], str]) -> str:
        """`compute` applied to a value of the input's shape, with the channels on axis 1."""
        rank = self.types[value].rank
        if channel_axis(self.types[value].shape) == 1:
            return compute(value)
        first = self._transposed(value, (0, rank - 1, *range(1, rank - 1)))
        return self._transposed(compute(first), (0, *range(2, rank), 1))

    def _transposed(self, value: str, permutation: tuple[int, ...]) -> str:
        kind = self.types[value]
        op = Transpose(
            name=self._fresh(f"{value}/transpose"),
            inputs=(value,),
            outputs=(self._fresh(f"{value}.transposed"),),
            permutation=permutation,
        )
        return self._emit(op, dataclasses.replace(kind, shape=op.infer_shape([kind.shape])))

    def _float_pixels(self, name: str, kind: TensorType, spec: InputSpec) -> None:
        """Pixels as floats: one multiplication, then the normalisation."""
        scale = 1.0 if not spec.is_plain else spec.scale[0]
        plain = self._fresh(f"{name}.float")
        dequantize = Dequantize(
            name=self._fresh(f"{name}/dequantize"),
            inputs=(name,),
            outputs=(plain,),
            scale=float(np.float32(scale)),
        )
        real = TensorType(kind.shape, FLOAT32)
        self.reals[name] = self._emit(dequantize, real)
        if spec.is_plain:
            return
        values = spec.pixel_values()
        count = channels(kind.shape)
        shift = np.broadcast_to(values[:, 0], (count,)).astype(np.float32)
        factor = np.broadcast_to(values[:, 1] - values[:, 0], (count,)).astype(np.float32)
        vector = TensorType((count,), FLOAT32)

        def normalise(pixels: str) -> str:
            affine = Affine(
                name=self._fresh(f"{name}/normalise"),
                inputs=(
                    pixels,
                    self._constant(f"{name}.factor", factor, vector),
                    self._constant(f"{name}.shift", shift, vector),
                ),
                outputs=(self._fresh(f"{name}.normalised"),),
            )
            return self._emit(affine, self.types[pixels])

        self.reals[name] = self._by_channel(self.reals[name], normalise)

    def _finish_output(self, value: str) -> None:
        """Gives the result its model name: floats, or class indices as they are."""
        if value in self.types and value not in self.graph.inputs:
            return
        self._dequantize(value, value)

    # Islands --------------------------------------------------------------------------------

    def _keep_float(self, op: Op) -> None:
        inputs = []
        for value in op.inputs:
            if self._is_index(value):
                inputs.append(self.codes[value])
            elif self.graph.is_constant(value):
                self.constants[value] = self.graph.constants[value]
                self.types[value] = self.graph.types[value]
                inputs.append(value)
            else:
                inputs.append(self._real(value))
        kind = self.graph.types[op.output]
        if isinstance(op, INDICES):
            self._emit(dataclasses.replace(op, inputs=tuple(inputs)), kind)
            self.codes[op.output] = op.output
            return
        output = op.output if kind.is_float else self._fresh(f"{op.output}.float")
        self._emit(
            dataclasses.replace(op, inputs=tuple(inputs), outputs=(output,)),
            TensorType(kind.shape, FLOAT32),
        )
        self.reals[op.output] = output
        if not kind.is_float:
            self.codes[op.output] = self._quantize(op.output, kind)
            if is_ternary(kind):
                del self.reals[op.output]  # the model's own function, for all that reads it

    def _is_index(self, value: str) -> bool:
        """Indices are the same integers among floats."""
        return isinstance(self.graph.producers.get(value), MaxPoolIndex)

    def _real(self, value: str) -> str:
        if value not in self.reals:
            self._dequantize(value, self._fresh(f"{value}.float"))
        return self.reals[value]

    def _dequantize(self, value: str, target: str) -> None:
        source = self.codes[value]
        op = Dequantize(
            name=self._fresh(f"{value}/dequantize"),
            inputs=(source,),
            outputs=(target,),
            scale=float(np.float32(float(scale_of(self.graph, value)))),
        )
        self.reals[value] = self._emit(op, TensorType(self.graph.types[value].shape, FLOAT32))

    def _quantize(self, value: str, kind: TensorType, target: str | None = None) -> str:
        """Codes of a float value in the type `kind`, under the name `target`."""
        kind = _alike(kind)
        assert kind.quantization is not None
        op = Quantize(
            name=self._fresh(f"{value}/quantize"),
            inputs=(self.reals[value],),
            outputs=(target or self._codes_name(value),),
            inverse=(1 / kind.quantization.scale[0],),
            offset=(boundary_offset(value, kind),),
            low=kind.codes.low,
            high=kind.codes.high,
        )
        return self._emit(op, kind)

    # Integer operators ----------------------------------------------------------------------

    def _codes_name(self, value: str) -> str:
        """Graph inputs and outputs keep their names for what the user passes and gets."""
        if value in self.graph.outputs or value in self.graph.inputs:
            return self._fresh(f"{value}.codes")
        return value

    def _codes(self, value: str, wanted: TensorType) -> str:
        """The codes of a value; a float one is quantized to the wanted type."""
        if self.graph.is_constant(value):
            self.constants[value] = self.graph.constants[value]
            self.types[value] = self.graph.types[value]
            return value
        if value not in self.codes:
            kind = dataclasses.replace(wanted, shape=self.graph.types[value].shape)
            return self._quantize(value, kind, self._fresh(f"{value}.codes"))
        return self.codes[value]

    def _lower(self, op: Op) -> None:
        kind = self.graph.types[op.output]
        if isinstance(op, INDICES):
            inputs = (self._codes(op.inputs[0], kind),)
            lowered: Op = dataclasses.replace(op, inputs=inputs)
            if isinstance(op, Threshold):
                limit = Fraction(op.limit) / scale_of(self.graph, op.inputs[0])
                lowered = dataclasses.replace(op, inputs=inputs, code_limit=math.floor(limit))
            self.codes[op.output] = self._emit(lowered, kind)
            return
        # Class indices that are moved have no scale, and are results as they are.
        output = op.output if kind.quantization is None else self._codes_name(op.output)
        if isinstance(op, SumOp):
            # Limits run along axis 1, the constants of a MatMul along the last one.
            kind = kind if op.channel_axis(kind.rank) == 1 else _alike(kind)
            lowered = self._lower_sum(op, kind, output)
        elif isinstance(op, Pointwise):
            kind = _alike(kind)
            lowered = self._lower_table(op, kind, output)
        else:
            masked = isinstance(op, Softmax | MaskedFill)
            values = op.inputs[:1] if masked else op.inputs
            moved = tuple(self._codes(value, kind) for value in values)
            masks = tuple(self._mask(value) for value in op.inputs[1:]) if masked else ()
            lowered = dataclasses.replace(op, inputs=(*moved, *masks), outputs=(output,))
            if isinstance(lowered, MaskedFill):
                lowered = dataclasses.replace(lowered, code=fill_code(lowered, kind))
            if isinstance(lowered, Pad):
                lowered = dataclasses.replace(lowered, code=pad_code(lowered, kind))
            if isinstance(lowered, MOVEMENT):
                limits = moved_limits(
                    lowered, [self.types[value] for value in moved_inputs(lowered)]
                )
                kind = dataclasses.replace(kind, limits=limits)
            if isinstance(lowered, Softmax):
                lowered = self._softmax(lowered, op.inputs[0], kind)
        self.codes[op.output] = self._emit(lowered, kind)

    def _mask(self, value: str) -> str:
        """A constant of 0 and 1 as an integer."""
        data = self.graph.constants[value].astype(MASK.storage)
        return self._constant(f"{value}.mask", data, TensorType(data.shape, MASK))

    def _lower_sum(self, op: SumOp, kind: TensorType, output: str) -> Op:
        lowered = exact_sum(self.graph, op, kind)
        inputs = [self._codes(value, kind) for value in lowered.op.inputs if self._is_codes(value)]
        for position, data, constant in lowered.constants:
            name = self._constant(f"{op.name}.weights", data, constant)
            inputs.insert(position, name)
        integer = dataclasses.replace(lowered.op, inputs=tuple(inputs), outputs=(output,))
        types = [self.types[value] for value in inputs]
        reach = integer.reach(types, [self.constants.get(value) for value in inputs])
        accumulator = IntType.holding(reach)
        if accumulator.bits > MAX_ACCUMULATOR_BITS:
            raise GraphError(
                f"{op.label()}: the exact sum needs {accumulator.bits} bits, more than "
                f"{MAX_ACCUMULATOR_BITS}; use fewer --wbits or --abits for this layer"
            )
        real = (op, lowered.units, lowered.biases, op.activation, kind, reach)
        published = None if published_format(kind) is None else published_epilogue(*real)
        epilogue = imported_or_made(*real) if published is None else published.epilogue
        if isinstance(epilogue, Requantize) and not INT64.contains(epilogue.product_range()):
            raise GraphError(
                f"{op.label()}: a sum of {accumulator.bits} bits times its multiplier exceeds "
                f"64 bits; use fewer --wbits or --abits for this layer"
            )
        done = dataclasses.replace(
            integer, activation=type(op.activation)(), epilogue=epilogue, accumulator=accumulator
        )
        if published is None or published.table is None:
            return done
        return self._indexed(done, published, kind, output)

    def _indexed(
        self, op: SumOp, found: PublishedEpilogue, kind: TensorType, output: str
    ) -> Lookup:
        """The sum gives indices, a table their codes."""
        assert found.index is not None
        assert found.table is not None
        levels = self._fresh(f"{output}.levels")
        self._emit(dataclasses.replace(op, outputs=(levels,)), TensorType(kind.shape, found.index))
        data = found.table.astype(kind.integer.storage)
        constant = self._constant(f"{op.name}.codes", data, TensorType(data.shape, kind.integer))
        return Lookup(
            name=self._fresh(f"{op.name}/codes"),
            inputs=(levels, constant),
            outputs=(output,),
            lowest=found.index.low,
        )

    def _is_codes(self, value: str) -> bool:
        """Float constants (biases, norm parameters) are in the epilogue already."""
        return not (self.graph.is_constant(value) and self.graph.types[value].is_float)

    def _lower_table(self, op: Pointwise, kind: TensorType, output: str) -> Lookup:
        source = self.graph.types[op.inputs[0]].integer
        scale = scale_of(self.graph, op.inputs[0])
        out_scale = scale_of(self.graph, op.output)
        data = function_table(op, source, scale, kind, out_scale)
        constant = self._constant(f"{op.name}.table", data, TensorType(data.shape, kind.integer))
        return Lookup(
            name=op.name,
            inputs=(self._codes(op.inputs[0], kind), constant),
            outputs=(output,),
            lowest=source.low,
            function=op.kind,
        )

    def _softmax(self, op: Softmax, source: str, kind: TensorType) -> Softmax:
        table = exp_table(self.graph.types[source].integer, scale_of(self.graph, source))
        assert kind.quantization is not None
        return dataclasses.replace(op, table=table, levels=round(1 / kind.quantization.exact()))


def _alike(kind: TensorType) -> TensorType:
    """The type with the same limits for all channels: what writes it has one clamp."""
    if kind.limits is None or kind.limits.is_per_tensor:
        return kind
    return dataclasses.replace(kind, limits=kind.limits.whole())
