"""The rules of the integer stage (arithmetic contract), a function for each operator family."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np

from qcompile.errors import GraphError
from qcompile.graph import Graph, Op
from qcompile.lowering.row_mass import row_mass
from qcompile.numerics import Epilogue, Requantize, Thresholds
from qcompile.ops import (
    MOVEMENT,
    ArgMax,
    BatchMatMul,
    Conv,
    ConvTranspose,
    Dequantize,
    Div,
    GroupNorm,
    LayerNorm,
    LocalAttention2d,
    Lookup,
    MaskedFill,
    MatMul,
    MaxPoolIndex,
    MaxUnpool,
    Pad,
    PadMode,
    Pointwise,
    Quantize,
    Softmax,
    SumOp,
    Threshold,
)
from qcompile.ops.code_limits import moved_inputs
from qcompile.types import MASK, IntType, Range, TensorType
from qcompile.verify_limits import epilogue_codes, verify_codes

_INT64 = IntType(64).range
_MAX_ACCUMULATOR_BITS = 63
_MAX_SHIFT = 62
_EXP_ONE = 1 << 15
"""exp(0) in the table of `Softmax`."""


def verify_integer_op(graph: Graph, op: Op) -> None:
    """Checks one operator of an integer graph whose structure is sound.

    Raises:
        GraphError: a rule of the stage is broken.
    """
    output = graph.types[op.output]
    match op:
        case Lookup():
            _verify_lookup(graph, op, output)
        case Quantize():
            _verify_quantize(graph, op, output)
        case Dequantize():
            _verify_dequantize(graph, op, output)
        case _ if output.is_float:
            _verify_island(graph, op)
        case MaxPoolIndex():
            verify_codes(op, [Range(0, math.prod(op.kernel) - 1)], output)
        case ArgMax():
            verify_codes(op, [Range(0, graph.types[op.inputs[0]].shape[op.axis] - 1)], output)
        case Threshold():
            verify_codes(op, [Range(0, 1)], output)
            if not graph.types[op.inputs[0]].is_float and op.code_limit is None:
                raise GraphError(f"{op.label()}: limit {op.limit:g} is not lowered to a code")
        case SumOp():
            _verify_sum(graph, op, output)
        case Softmax():
            _verify_softmax(graph, op, output)
        case Pointwise():
            raise GraphError(f"{op.label()}: must be a Lookup in the integer stage")
        case _ if isinstance(op, MOVEMENT):
            _verify_movement(graph, op, output)


def _verify_island(graph: Graph, op: Op) -> None:
    """Float kernels: no epilogue, and no integer activations among the inputs."""
    if isinstance(op, SumOp) and (op.epilogue is not None or op.accumulator is not None):
        raise GraphError(f"{op.label()}: has an integer epilogue but a float output")
    for name in moved_inputs(op):
        kind = graph.types[name]
        if kind.is_float:
            continue
        if not graph.is_constant(name):
            raise GraphError(
                f"{op.label()}: float operator reads integer '{name}'; a Dequantize is missing"
            )
        if kind.quantization is None:
            raise GraphError(f"{op.label()}: integer constant '{name}' has no scale")


def _verify_sum(graph: Graph, op: SumOp, output: TensorType) -> None:
    for name in op.inputs:
        if graph.types[name].is_float:
            raise GraphError(
                f"{op.label()}: integer operator reads float value '{name}'; a Quantize is missing"
            )
    if op.epilogue is None or op.accumulator is None:
        raise GraphError(f"{op.label()}: has no epilogue or no accumulator type")
    if not op.activation.is_identity:
        raise GraphError(
            f"{op.label()}: activation {op.activation} is not lowered into the epilogue"
        )
    if isinstance(op, (Conv, ConvTranspose, MatMul)):
        _verify_weights(graph, op, output)
    if isinstance(op, GroupNorm | LayerNorm) and (len(op.inputs) != 1 or op.widths is None):
        raise GraphError(f"{op.label()}: lowered norms have one input and stated widths")
    if isinstance(op, BatchMatMul) and op.mass is not None:
        proven = row_mass(graph, op)
        if proven is None or op.mass < proven:
            raise GraphError(f"{op.label()}: its rows may add up to more than {op.mass}")
    if isinstance(op, LocalAttention2d):
        _verify_attention(graph, op)
    if isinstance(op, Div) and op.fraction_bits < 0:
        raise GraphError(f"{op.label()}: {op.fraction_bits} fraction bits")
    reach = op.reach(graph.input_types(op), [graph.constants.get(name) for name in op.inputs])
    if op.accumulator.bits > _MAX_ACCUMULATOR_BITS:
        raise GraphError(
            f"{op.label()}: its accumulator needs {op.accumulator.bits} bits, more than "
            f"{_MAX_ACCUMULATOR_BITS}; use fewer bits for weights or activations"
        )
    if not op.accumulator.range.contains(reach):
        raise GraphError(
            f"{op.label()}: sums reach {reach.low}..{reach.high}, outside of accumulator "
            f"{op.accumulator}"
        )
    channels = output.shape[op.channel_axis(output.rank)] if output.rank else 1
    verify_epilogue(op, op.epilogue, channels, output.integer)
    _verify_sum_limits(op, op.epilogue, reach, output)


def _verify_sum_limits(op: SumOp, epilogue: Epilogue, reach: Range, output: TensorType) -> None:
    codes = epilogue_codes(epilogue, reach)
    if op.channel_axis(output.rank) != 1:
        codes = [functools.reduce(Range.union, codes)]
    verify_codes(op, codes, output)


def _verify_weights(graph: Graph, op: SumOp, output: TensorType) -> None:
    if len(op.inputs) != 2:
        raise GraphError(f"{op.label()}: a lowered operator has its bias in the epilogue")
    weights = graph.types[op.inputs[1]]
    if weights.quantization is None or weights.codebook is None:
        raise GraphError(f"{op.label()}: integer weights need a scale and a codebook")
    channels = output.shape[op.channel_axis(output.rank)]
    if len(weights.quantization.scale) not in (1, channels):
        raise GraphError(
            f"{op.label()}: {len(weights.quantization.scale)} weight scales for {channels} channels"
        )


def verify_epilogue(op: Op, epilogue: Epilogue, channels: int, element: IntType) -> None:
    """Checks an epilogue for an output of `channels` channels and element type `element`.

    Raises:
        GraphError: vector lengths, widths or ranges do not fit.
    """
    if isinstance(epilogue, Requantize):
        _verify_requantize(op, epilogue, channels)
    else:
        _verify_thresholds(op, epilogue, channels)
    produced = epilogue.output_range()
    if not element.range.contains(produced):
        raise GraphError(
            f"{op.label()}: the epilogue gives {produced.low}..{produced.high}, outside of the "
            f"output's type {element}"
        )


def _verify_requantize(op: Op, epilogue: Requantize, channels: int) -> None:
    vectors: dict[str, Sequence[int]] = {
        "multipliers": epilogue.multipliers,
        "biases": epilogue.biases,
        "shifts": epilogue.shifts,
        "lows": epilogue.lows,
        "highs": epilogue.highs,
        "acc_low": epilogue.acc_low,
        "acc_high": epilogue.acc_high,
    }
    if epilogue.negative is not None:
        vectors["negative pivots"] = epilogue.negative.pivots
        vectors["negative multipliers"] = epilogue.negative.multipliers
        vectors["negative biases"] = epilogue.negative.biases
    for name, vector in vectors.items():
        _verify_length(op, name, vector, channels)
    if not all(1 <= shift <= _MAX_SHIFT for shift in epilogue.shifts):
        raise GraphError(f"{op.label()}: requantise shifts must lie in 1..{_MAX_SHIFT}")
    for low, high in np.broadcast(epilogue.lows, epilogue.highs):
        if low > high:
            raise GraphError(f"{op.label()}: empty output range {low}..{high}")
    lows = np.broadcast_to(np.array(epilogue.acc_low, dtype=object), channels)
    highs = np.broadcast_to(np.array(epilogue.acc_high, dtype=object), channels)
    if (lows > highs).any():
        raise GraphError(f"{op.label()}: an accumulator clamp is empty")
    products = epilogue.product_range()
    if not _INT64.contains(products):
        raise GraphError(
            f"{op.label()}: products reach {products.low}..{products.high}, more than 64 bits"
        )


def _verify_thresholds(op: Op, epilogue: Thresholds, channels: int) -> None:
    if epilogue.step == 0 or not epilogue.thresholds:
        raise GraphError(f"{op.label()}: a threshold epilogue needs thresholds and a step")
    for row in epilogue.thresholds:
        _verify_length(op, "thresholds", row, channels)
        if not all(_INT64.contains(Range(limit, limit)) for limit in row):
            raise GraphError(f"{op.label()}: a threshold needs more than 64 bits")
    rows = [np.broadcast_to(np.array(row, dtype=object), channels) for row in epilogue.thresholds]
    if any((later < earlier).any() for earlier, later in itertools.pairwise(rows)):
        raise GraphError(f"{op.label()}: thresholds must ascend")


def _verify_length(op: Op, name: str, vector: Sequence[object], channels: int) -> None:
    if len(vector) not in (1, channels):
        raise GraphError(f"{op.label()}: {len(vector)} {name} for {channels} channels")


def _verify_movement(graph: Graph, op: Op, output: TensorType) -> None:
    for name in moved_inputs(op):
        kind = graph.types[name]
        if kind.is_float or not output.integer.range.contains(kind.integer.range):
            raise GraphError(
                f"{op.label()}: copies {kind.element} codes of '{name}' into {output.element}"
            )
        if kind.quantization != output.quantization:
            raise GraphError(
                f"{op.label()}: input '{name}' and the output have different scales; "
                f"a rescale is missing"
            )
    if isinstance(op, MaskedFill):
        _verify_mask(graph, op, op.inputs[1])
        if op.code is None or not output.integer.range.contains(Range(op.code, op.code)):
            raise GraphError(f"{op.label()}: code {op.code} does not fit {output.element}")
    if isinstance(op, MaxUnpool) and graph.types[op.inputs[1]].is_float:
        raise GraphError(f"{op.label()}: its indices '{op.inputs[1]}' are floats")
    if isinstance(op, Pad) and op.mode is PadMode.CONSTANT:
        fits = op.code is not None and output.integer.range.contains(Range(op.code, op.code))
        if not fits:
            raise GraphError(f"{op.label()}: pad code {op.code} does not fit {output.element}")


def _verify_lookup(graph: Graph, op: Lookup, output: TensorType) -> None:
    codes, table = (graph.types[name] for name in op.inputs)
    if codes.is_float:
        raise GraphError(f"{op.label()}: tables are indexed by integers, not {codes.element}")
    last = op.lowest + table.shape[-1] - 1
    if op.lowest > codes.integer.low or last < codes.integer.high:
        raise GraphError(
            f"{op.label()}: the table covers codes {op.lowest}..{last}, the input has "
            f"{codes.integer.low}..{codes.integer.high}"
        )
    if output.is_float != table.is_float:
        raise GraphError(
            f"{op.label()}: table of {table.element} for an output of {output.element}"
        )
    if not output.is_float:
        data = graph.constants[op.inputs[1]]
        entries = Range(int(data.min()), int(data.max()))
        if not output.integer.range.contains(entries):
            raise GraphError(
                f"{op.label()}: table entries {entries.low}..{entries.high} do not fit "
                f"{output.element}"
            )
        rows = data if data.ndim > 1 else data[None]
        verify_codes(op, [Range(int(row.min()), int(row.max())) for row in rows], output)


def _verify_quantize(graph: Graph, op: Quantize, output: TensorType) -> None:
    if not graph.types[op.inputs[0]].is_float or output.is_float:
        raise GraphError(f"{op.label()}: turns floats into integers")
    channels = output.shape[1] if output.rank > 1 else 1
    _verify_length(op, "factors", op.inverse, channels)
    _verify_length(op, "offsets", op.offset, channels)
    if op.low > op.high or not output.integer.range.contains(Range(op.low, op.high)):
        raise GraphError(f"{op.label()}: codes {op.low}..{op.high} do not fit {output.element}")
    verify_codes(op, [Range(op.low, op.high)], output)


def _verify_dequantize(graph: Graph, op: Dequantize, output: TensorType) -> None:
    kind = graph.types[op.inputs[0]]
    if kind.is_float or not output.is_float:
        raise GraphError(f"{op.label()}: turns integers into floats")
    if kind.quantization is None or not kind.quantization.is_per_tensor:
        raise GraphError(f"{op.label()}: its input needs one scale")
    expected = float(np.float32(kind.quantization.scale[0]))
    if float(np.float32(op.scale)) != expected:
        raise GraphError(f"{op.label()}: scale {op.scale:g}, but its input has {expected:g}")


def _verify_softmax(graph: Graph, op: Softmax, output: TensorType) -> None:
    kind = graph.types[op.inputs[0]]
    if kind.is_float:
        raise GraphError(f"{op.label()}: integer softmax reads float value '{op.inputs[0]}'")
    differences = kind.integer.high - kind.integer.low + 1
    if len(op.table) < differences:
        raise GraphError(
            f"{op.label()}: its table has {len(op.table)} entries for {differences} differences"
        )
    if op.table[0] != _EXP_ONE or not all(0 <= entry <= _EXP_ONE for entry in op.table):
        raise GraphError(f"{op.label()}: the table must start at {_EXP_ONE} and stay within 0..")
    if not 1 <= op.levels <= output.integer.high:
        raise GraphError(f"{op.label()}: {op.levels} levels do not fit {output.element}")
    verify_codes(op, [Range(0, op.levels)], output)
    for name in op.inputs[1:]:
        _verify_mask(graph, op, name)


def _verify_mask(graph: Graph, op: Op, name: str) -> None:
    if graph.types[name].element != MASK:
        raise GraphError(f"{op.label()}: mask '{name}' is not {MASK}")


def _verify_attention(graph: Graph, op: LocalAttention2d) -> None:
    widths = op.widths
    if len(op.inputs) != 4 or widths is None:
        raise GraphError(f"{op.label()}: lowered attention has four inputs and stated widths")
    powers = widths.powers
    if not powers or powers[0] != _EXP_ONE or not all(0 <= entry <= _EXP_ONE for entry in powers):
        raise GraphError(f"{op.label()}: its table must start at {_EXP_ONE} and stay within 0..")
    if not 1 <= widths.levels <= _EXP_ONE or op.positions > _EXP_ONE:
        raise GraphError(
            f"{op.label()}: {widths.levels} levels over {op.positions} positions exceed 32 bits"
        )
    if not (0 <= widths.key_bits <= _MAX_SHIFT and 0 <= widths.index_shift <= _MAX_SHIFT):
        raise GraphError(f"{op.label()}: its shifts must lie in 0..{_MAX_SHIFT}")
    q, k = graph.input_types(op)[:2]
    scores = op.score_reach(q, k, graph.constants[op.inputs[3]])
    if not _INT64.contains(Range(0, scores.high - scores.low + (1 << widths.index_shift))):
        raise GraphError(
            f"{op.label()}: its scores reach {scores.low}..{scores.high}, more than 62 bits"
        )
