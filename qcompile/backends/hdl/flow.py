"""From an integer graph to the stages of a streaming accelerator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from qcompile.backends.hdl.planner import divisors, refuse, tensor_stream
from qcompile.backends.hdl.table import PLANNERS, REFUSED
from qcompile.errors import Unsupported
from qcompile.graph import Graph, Op
from qcompile.hw.products import MULTIPLIER_18, MultiplierSize
from qcompile.hw.stage import Flow, Fold, Stage
from qcompile.hw.streams import TensorStream
from qcompile.ops import Dequantize, Quantize, Reshape
from qcompile.types import FloatType, Shape

RANKS = (2, 4)


@dataclass(frozen=True)
class StreamGraph:
    """An integer graph as hardware sees it: integer values only.

    Float inputs are quantised by whoever feeds the accelerator: their `Quantize` is the boundary,
    and its output an input here. Float outputs likewise end before their `Dequantize`. A reshape
    that does not change the order of a stream is another name for the same value.

    Attributes:
        graph: of the integer stage.
        multiplier: what the device multiplies with, None if it has no multipliers.
    """

    graph: Graph
    multiplier: MultiplierSize | None = MULTIPLIER_18

    @cached_property
    def aliases(self) -> Mapping[str, str]:
        """Value -> the value whose stream carries it."""
        found: dict[str, str] = {}
        for op in self.graph.ops:
            if isinstance(op, Reshape) and self._keeps_order(op):
                found[op.output] = found.get(op.inputs[0], op.inputs[0])
        return found

    def _keeps_order(self, op: Reshape) -> bool:
        def stream_shape(shape: Shape) -> Shape | None:
            if len(shape) == 2:
                return (*shape, 1, 1)
            if len(shape) == 3:
                return (shape[0], 1, *shape[1:])
            return shape if len(shape) == 4 else None

        before = self.graph.types[op.inputs[0]].shape
        return stream_shape(before) == stream_shape(op.shape) is not None

    def carrier(self, value: str) -> str:
        return self.aliases.get(value, value)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """What arrives from outside: integer graph inputs, or their quantised codes."""
        return tuple(
            op.output
            for name in self.graph.inputs
            for op in self.graph.consumers[name]
            if self._is_front(op)
        ) + tuple(name for name in self.graph.inputs if not self._is_float(name))

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """What leaves: integer outputs, or the codes of float ones; each once."""
        found = []
        for name in self.graph.outputs:
            producer = self.graph.producers.get(name)
            value = producer.inputs[0] if isinstance(producer, Dequantize) else name
            found.append(self.carrier(value))
        return tuple(dict.fromkeys(found))

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """The operators that become stages."""
        return tuple(
            op
            for op in self.graph.ops
            if not self._is_front(op) and not self._is_back(op) and op.output not in self.aliases
        )

    def refused(self) -> Iterator[Unsupported]:
        """Everything hardware cannot have, with a way out."""
        graph = self.graph
        for name in self.inputs:
            yield from self._wrong_rank(name, "input")
        for name in graph.inputs:
            if not graph.consumers[name]:
                yield Unsupported("input", name, "is read by nothing", "remove it from the model")
        if not self.ops:
            yield Unsupported("network", graph.name, "has no operator to build", "use --target c")
        for op in self.ops:
            if op.output in graph.outputs and self._is_float(op.output):
                yield refuse(op, "computes floats", "use --abits and --wbits below 32")
                continue
            if any(self._is_float(value) for value in (*op.inputs, op.output)):
                yield refuse(op, "computes floats", "use --abits and --wbits below 32")
                continue
            ranks = {
                graph.types[v].rank for v in (*op.inputs, op.output) if v not in graph.constants
            }
            planner = PLANNERS.get(type(op))
            if planner is None:
                reason, advice = REFUSED[type(op)]
                yield refuse(op, reason, advice)
            elif not ranks <= {*RANKS, 3} or (3 in ranks and graph.types[op.output].rank != 3):
                yield refuse(
                    op,
                    f"has tensors of {max(ranks)} axes, a stream has [1, C, H, W] or [1, C]",
                    "use a model of 2-D slices, or --target c",
                )
            else:
                problem = planner.refusal(graph, op)
                if problem is not None:
                    yield problem

    def _wrong_rank(self, name: str, what: str) -> Iterator[Unsupported]:
        rank = self.graph.types[name].rank
        if rank not in RANKS:
            yield Unsupported(
                what,
                name,
                f"has {rank} axes, a stream has [1, C, H, W] or [1, C]",
                "use 2-D images",
            )

    def _is_float(self, value: str) -> bool:
        return isinstance(self.graph.types[value].element, FloatType)

    def _is_front(self, op: Op) -> bool:
        return isinstance(op, Quantize) and op.inputs[0] in self.graph.inputs

    def _is_back(self, op: Op) -> bool:
        return isinstance(op, Dequantize) and op.output in self.graph.outputs

    def folds(self) -> dict[str, Sequence[Fold]]:
        """Operator name -> its foldings."""
        return {op.name: PLANNERS[type(op)].folds(self.graph, op) for op in self.ops}

    def stage(self, op: Op, fold: Fold) -> Stage:
        """One operator with a folding, reading the values that carry its inputs."""
        stage = PLANNERS[type(op)].stage(self.graph, op, fold, self.multiplier)
        values = tuple(self.carrier(value) for value in stage.values)
        return replace(stage, values=values)

    def flow(self, stages: Mapping[str, Stage]) -> Flow:
        """The chosen stages in order."""
        return Flow(
            {name: self._input(name, stages) for name in self.inputs},
            tuple(stages[op.name] for op in self.ops),
            self.outputs,
        )

    def _input(self, name: str, stages: Mapping[str, Stage]) -> TensorStream:
        """The input's stream, at the lanes of its first reader."""
        lanes = [
            stream.lanes
            for stage in stages.values()
            for value, stream in zip(stage.values, stage.inputs, strict=True)
            if value == name
        ]
        kind = self.graph.types[name]
        return tensor_stream(kind, max(lanes, default=divisors(kind.shape[1])[-1]))
