"""The exported model in onnxruntime against the simulator.

Floats cannot repeat integer arithmetic bit by bit: where a result lies halfway between two codes,
or nearly so, the model may take the other one. So every operator is first run by itself, on the
simulator's own codes, and must give each code or its neighbour. Then the model is run as it is, and
the codes of its outputs are counted that differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompile.boundary import InputSpec
from qcompile.errors import ToolError, VerificationError
from qcompile.exporter import ExportedModel
from qcompile.exporter.dialect import is_binary
from qcompile.exporter.storage import code_limits
from qcompile.exporter.unchained import Unchained, runnable, unchain
from qcompile.feeds import Feed, float_feed
from qcompile.graph import Graph
from qcompile.lowering.sums import ADD_WEIGHT_BITS
from qcompile.ops import (
    Add,
    Div,
    GroupNorm,
    LayerNorm,
    LocalAttention2d,
    MaxPoolIndex,
    Softmax,
)
from qcompile.sim.executor import Executor
from qcompile.types import Array, TensorType, per_channel

MOST_STEPS = 1
"""Largest difference between a code of the model and the simulator's, given the same inputs."""

COMPOSITES = (GroupNorm, LayerNorm, LocalAttention2d, Softmax, Div)
COMPOSITE_BITS = 8

FLOAT_LIMIT = 1e-3
"""Largest difference of a tensor that stays float, relative to its largest magnitude."""


@dataclass
class OnnxComparison:
    """What was compared and what was found, summed over all runs.

    Attributes:
        runs: inputs.
        values: tensors compared for each of them.
        codes: of all operators, each run on the simulator's inputs.
        differing: how many of these were the neighbour of the simulator's code.
        output_codes: of the outputs of the whole model.
        output_differing: how many of these differ from the simulator's.
        output_steps: their largest difference.
        classes: pixels of class maps, in the whole model.
        classes_differing: how many of them differ.
        distance: largest distance of a simulator's code from the real number, in steps.
        float_difference: largest of a float tensor, relative to its magnitude; None without any.
    """

    runs: int = 0
    values: int = 0
    codes: int = 0
    differing: int = 0
    output_codes: int = 0
    output_differing: int = 0
    output_steps: int = 0
    classes: int = 0
    classes_differing: int = 0
    distance: float = 0.0
    float_difference: float | None = None

    def details(self) -> dict[str, Any]:
        """For the report."""
        found = {
            "runs": self.runs,
            "values": self.values,
            "onnx_codes": self.codes,
            "onnx_codes_one_step_off": self.differing,
            "onnx_largest_distance": round(self.distance, 4),
            "onnx_output_codes": self.output_codes,
            "onnx_output_codes_differing": self.output_differing,
            "onnx_output_largest_steps": self.output_steps,
        }
        if self.classes:
            found["onnx_classes"] = self.classes
            found["onnx_classes_differing"] = self.classes_differing
        if self.float_difference is not None:
            found["float_largest_difference"] = self.float_difference
            found["float_limit"] = FLOAT_LIMIT
        return found


def verify_onnx(
    exported: ExportedModel,
    integer: Graph,
    specs: Mapping[str, InputSpec],
    feeds: Sequence[Feed],
) -> OnnxComparison:
    """Runs the model operator by operator, then as a whole.

    Args:
        exported: the model.
        integer: the same network after lowering.
        specs: what the pixels of each input mean.
        feeds: inputs of the integer graph.

    Raises:
        ToolError: onnxruntime is not installed.
        VerificationError: an operator differs by more than it may; names it, index and numbers.
    """
    comparison = OnnxComparison(runs=len(feeds))
    apart, whole = unchain(exported), _session(runnable(exported), optimised=True)
    alone = _session(apart.content, optimised=False)
    simulator = Executor(integer)
    for feed in feeds:
        simulated = _Simulated(exported.graph, integer, simulator.run(feed, taps="all"))
        real_feed = _model_feed(exported, feed, specs)
        _compare_operators(comparison, exported, apart, alone, simulated, real_feed)
        _compare_outputs(comparison, exported.graph, whole, simulated, real_feed)
    return comparison


def _session(content: bytes, *, optimised: bool) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ToolError(
            "--verify: of an ONNX model needs onnxruntime; install it with "
            "pip install 'qcompile[onnxruntime]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Without it, 8-bit products may saturate in the 16-bit sums of older x86 processors.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _model_feed(
    exported: ExportedModel, feed: Feed, specs: Mapping[str, InputSpec]
) -> dict[str, Array]:
    """The inputs as the exported model takes them."""
    reals = float_feed(feed, specs)
    taken = exported.pixel_inputs
    return {name: np.asarray(feed[name]) if name in taken else reals[name] for name in feed}


class _Simulated:
    """One run of the simulator, seen through the names of the quantized graph."""

    def __init__(self, quantized: Graph, integer: Graph, values: Mapping[str, Array]) -> None:
        self.graph = quantized
        self._values = values
        self._names = simulated_names(quantized, integer)

    def reals(self, value: str) -> Array:
        """Real numbers as float32, or class indices."""
        kind = self.graph.types[value]
        if kind.is_float:
            return self._values[self._names[value]]
        if kind.quantization is None:
            found = self._values[self._names[value]]
            producer = self.graph.producers.get(value)
            if isinstance(producer, MaxPoolIndex):
                return producer.in_whole(found, self.graph.types[producer.inputs[0]].shape)
            return found.astype(np.int64)
        return self.codes(value).astype(np.float32) * np.float32(kind.quantization.scale[0])

    def codes(self, value: str) -> Array:
        """Codes as int64."""
        data, kind = self._values[self._names[value]], self.graph.types[value]
        if data.dtype.kind != "f":
            return data.astype(np.int64)
        # Read by operators alone that stay float, so the simulator has no need to round it.
        return np.clip(codes_of(data, kind), kind.codes.low, kind.codes.high)


def codes_of(reals: Array, kind: TensorType) -> Array:
    """The codes of real numbers that lie on their grid."""
    assert kind.quantization is not None
    return np.rint(reals.astype(np.float64) / kind.quantization.scale[0]).astype(np.int64)


def simulated_names(quantized: Graph, integer: Graph) -> dict[str, str]:
    """Value of the quantized graph -> the integer graph's value with the same numbers.

    Lowering keeps the names of operators and the order of their operands, but not all names of
    values: at the boundaries, and around floats, codes and real numbers both exist.
    """
    candidates: dict[str, list[str]] = {}
    for op in quantized.ops:
        lowered = integer.by_name.get(op.name)
        if lowered is None:
            continue
        for value, name in zip(op.inputs, lowered.inputs, strict=False):
            if not quantized.is_constant(value):
                candidates.setdefault(value, []).append(name)
        candidates.setdefault(op.output, []).insert(0, lowered.output)
    names = {}
    for value in quantized.activations():
        found = [*candidates.get(value, ()), f"{value}.codes", value]
        found = [name for name in found if name in integer.types]
        is_float = quantized.types[value].is_float
        alike = [name for name in found if integer.types[name].is_float == is_float]
        names[value] = (alike or found)[0]
    return names


def _compare_operators(
    comparison: OnnxComparison,
    exported: ExportedModel,
    apart: Unchained,
    session: Any,
    simulated: _Simulated,
    feed: Mapping[str, Array],
) -> None:
    given = {name: simulated.reals(value) for value, name in apart.given.items()}
    wanted = [info.name for info in session.get_outputs()]
    inputs = {**given, **{name: feed[name] for name in apart.inputs}}
    found = dict(zip(wanted, session.run(wanted, inputs), strict=True))
    graph = exported.graph
    comparison.values = len(apart.results)
    for value, name in apart.results.items():
        kind = graph.types[value]
        if kind.is_float:
            _compare_floats(comparison, graph, value, simulated.reals(value), found[name])
            continue
        if kind.quantization is None:
            expected, actual, most = simulated.reals(value), found[name].astype(np.int64), 0
        else:
            expected, actual = simulated.codes(value), codes_of(found[name], kind)
            most = _most_steps(graph, value)
        difference = np.abs(actual - expected)
        if difference.max(initial=0) > most:
            index = tuple(int(i) for i in np.unravel_index(difference.argmax(), difference.shape))
            raise VerificationError(
                f"the ONNX model differs at {_where(graph, value)}{list(index)}: code "
                f"{actual[index]} in onnxruntime, {expected[index]} in the simulator, from the "
                f"same inputs; {np.count_nonzero(difference > most)} of {difference.size} differ"
            )
        comparison.codes += difference.size
        comparison.differing += int(np.count_nonzero(difference))
        if value in apart.unrounded and _is_rounded_sum(graph, value):
            source = apart.unrounded[value]
            real = found[source] if source in found else given[source]
            distance = _distance(real, expected, kind)
            comparison.distance = max(comparison.distance, distance)


def _most_steps(graph: Graph, value: str) -> int:
    """One; two for the neighbour of a binary code. Norms, softmax and division, whose integer forms
    are approximations, get two steps of an 8-bit grid, and sums of two 16-bit tensors, whose
    weights have 14 bits, four steps more."""
    kind, producer = graph.types[value], graph.producers.get(value)
    bits = kind.integer.bits
    if isinstance(producer, COMPOSITES) and bits > COMPOSITE_BITS:
        return 2 << (bits - COMPOSITE_BITS)
    if isinstance(producer, Add) and bits > ADD_WEIGHT_BITS:
        return MOST_STEPS + (1 << (bits - ADD_WEIGHT_BITS))
    return MOST_STEPS + int(is_binary(kind))


def _is_rounded_sum(graph: Graph, value: str) -> bool:
    """Whether the simulator's code is a real number that was rounded once."""
    kind = graph.types[value]
    is_composite = isinstance(graph.producers.get(value), COMPOSITES)
    return kind.quantization is not None and not is_composite and not is_binary(kind)


def _distance(real: Array, codes: Array, kind: TensorType) -> float:
    """How far codes lie from real numbers that do not saturate, in steps."""
    assert kind.quantization is not None
    limits = code_limits(kind)
    low, high = (per_channel(ends, "int64", 1, kind.rank) for ends in (limits.low, limits.high))
    steps = real.astype(np.float64) / kind.quantization.scale[0]
    inside = np.abs(steps - codes)[(low <= steps) & (steps <= high)]
    return float(inside.max(initial=0.0))


def _compare_floats(
    comparison: OnnxComparison, graph: Graph, value: str, expected: Array, actual: Array
) -> None:
    largest = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
    difference = float(np.abs(actual - expected).max(initial=0.0)) / largest
    comparison.float_difference = max(comparison.float_difference or 0.0, difference)
    if not difference <= FLOAT_LIMIT:
        raise VerificationError(
            f"the ONNX model differs at {_where(graph, value)}: floats differ by "
            f"{difference:.3g} of their largest magnitude, more than {FLOAT_LIMIT}"
        )


def _where(graph: Graph, value: str) -> str:
    producer = graph.producers.get(value)
    return f"{producer.label()}: value '{value}'" if producer else f"input '{value}'"


def _compare_outputs(
    comparison: OnnxComparison,
    graph: Graph,
    session: Any,
    simulated: _Simulated,
    feed: Mapping[str, Array],
) -> None:
    found = session.run(list(graph.outputs), dict(feed))
    for value, data in zip(graph.outputs, found, strict=True):
        kind = graph.types[value]
        if kind.is_float:
            continue
        if kind.quantization is None:
            comparison.classes += data.size
            comparison.classes_differing += int(np.count_nonzero(data != simulated.reals(value)))
            continue
        difference = np.abs(codes_of(data, kind) - simulated.codes(value))
        comparison.output_codes += difference.size
        comparison.output_differing += int(np.count_nonzero(difference))
        comparison.output_steps = max(comparison.output_steps, int(difference.max(initial=0)))
