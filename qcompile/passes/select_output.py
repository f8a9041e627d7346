"""Makes the graph return what the user asked for: logits, probabilities or a class map."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from qcompile.errors import UsageError
from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import (
    ArgMax,
    FakeQuantize,
    HardSigmoid,
    Rescale,
    Reshape,
    Sigmoid,
    Softmax,
    Threshold,
    Transpose,
)
from qcompile.options import OutputKind
from qcompile.types import IntType, Range, TensorType


@dataclass(frozen=True, slots=True)
class SelectOutput:
    """Appends or strips the function at the end of every output.

    Before, `kind` CLASSES and threshold 0.5::

        %y = Sigmoid 's'(%logits)
        return %y

    After::

        %y = Threshold 's.classes'(%logits) limit=0
        return %y

    LOGITS strips a final Sigmoid, Softmax, ArgMax or Threshold. PROBABILITIES ends in Sigmoid for
    one channel, else in Softmax over the channels. CLASSES ends in ArgMax over the channels, or
    for one channel in `threshold` (a probability, applied to the logits as log(p / (1 - p))). Class
    maps keep their channel axis, of size 1. A Reshape or Transpose at the very end stays there.
    Outputs keep their names.
    """

    name: ClassVar[str] = "select-output"

    kind: OutputKind = OutputKind.AUTO
    threshold: float = 0.5

    def run(self, graph: Graph) -> Graph:
        """The graph with the wanted outputs.

        Raises:
            UsageError: the threshold is no probability, or an output cannot be brought to `kind`.
        """
        if self.kind is OutputKind.AUTO:
            return graph
        if not 0 < self.threshold < 1:
            raise UsageError(
                f"output threshold {self.threshold:g} is no probability; "
                f"give a number between 0 and 1"
            )
        for output in graph.outputs:
            graph = self._select(graph, output)
        return graph

    def _select(self, graph: Graph, output: str) -> Graph:
        end = _end(graph, output)
        if output in graph.inputs or output in graph.constants or self._is_reached(end):
            return graph
        chain: list[Op] = list(end.movements)
        final = self._function(graph, end)
        if isinstance(final, (ArgMax, Threshold)):
            # Class indices have no scale, so they are better made behind what only moves values.
            chain.append(_moved(final, end.movements, output))
        elif final is not None:
            chain.insert(0, final)
        return _ended_by(graph, output, end.head, chain)

    def _is_reached(self, end: _End) -> bool:
        """The output is of the wanted kind already."""
        match self.kind:
            case OutputKind.CLASSES:
                return end.classes is not None
            case OutputKind.PROBABILITIES:
                return end.classes is None and (end.function is not None or end.bounded)
        return end.classes is None and end.function is None

    def _function(self, graph: Graph, end: _End) -> Op | None:
        """What turns the head (logits, unless it is bounded) into the wanted kind."""
        shape = graph.types[end.head].shape
        one_channel = len(shape) < 2 or shape[1] == 1
        last = end.function or end.classes or graph.producers.get(end.head)
        name = f"{last.name if last else end.head}.{self.kind.value}"
        match self.kind:
            case OutputKind.PROBABILITIES if one_channel:
                return Sigmoid(name=name, inputs=(end.head,), outputs=())
            case OutputKind.PROBABILITIES:
                return Softmax(name=name, inputs=(end.head,), outputs=(), axis=1)
            case OutputKind.CLASSES if one_channel:
                odds = self.threshold / (1 - self.threshold)
                limit = self.threshold if end.bounded else math.log(odds)
                return Threshold(name=name, inputs=(end.head,), outputs=(), limit=limit)
            case OutputKind.CLASSES:
                return ArgMax(name=name, inputs=(end.head,), outputs=(), axis=1)
        return None


@dataclass(frozen=True, slots=True)
class _End:
    """The end of one output: head -> function -> movements, and a class map if there is one.

    `bounded` says that the head itself is a probability (HardSigmoid, which cannot be stripped).
    """

    head: str
    function: Op | None
    classes: Op | None
    movements: tuple[Op, ...]
    bounded: bool


def _end(graph: Graph, output: str) -> _End:
    value = output
    function: Op | None = None
    classes: Op | None = None
    movements: list[Op] = []
    before_rounding: tuple[str, tuple[Op, ...]] | None = None
    while (op := graph.producers.get(value)) is not None:
        if isinstance(op, FakeQuantize) and function is None and classes is None:
            # Rounded probabilities count as the probabilities; rounded logits are the logits.
            before_rounding = before_rounding or (value, tuple(movements))
        elif isinstance(op, (Reshape, Transpose)):
            movements.insert(0, op)
        elif isinstance(op, (ArgMax, Threshold)) and classes is None and function is None:
            # The movements so far were those of the class map, which goes away.
            classes, movements = op, []
        elif isinstance(op, (Sigmoid, Softmax)) and function is None:
            function = op
        else:
            break
        value = op.inputs[0]
    if before_rounding is not None and function is None and classes is None:
        value, movements = before_rounding[0], list(before_rounding[1])
        while isinstance(op := graph.producers.get(value), FakeQuantize):
            value = op.inputs[0]
        value = before_rounding[0]
    return _End(value, function, classes, tuple(movements), isinstance(op, HardSigmoid))


def _moved(final: ArgMax | Threshold, movements: tuple[Op, ...], output: str) -> Op:
    """`final`, made for the value before `movements`, for the value behind them."""
    if isinstance(final, Threshold):
        return final
    for movement in movements:
        if not isinstance(movement, Transpose):
            raise UsageError(
                f"{movement.label()}: mixes the channels of output '{output}' with other axes; "
                f"a class map cannot follow it, use another output kind"
            )
        final = dataclasses.replace(final, axis=movement.permutation.index(final.axis))
    return final


def _ended_by(graph: Graph, output: str, head: str, chain: list[Op]) -> Graph:
    """The graph whose `output` is `chain` (operators of one input) applied to value `head`."""
    rewriter = Rewriter(graph)
    # What writes the output now writes an inner value, which may have other readers.
    former = graph.producers[output]
    inner = rewriter.add_value(f"{output}.inner", graph.types[output])
    renamed = {output: inner}
    rewriter.replace(former, dataclasses.replace(former, outputs=(inner,)))
    for reader in graph.consumers[output]:
        inputs = tuple(renamed.get(name, name) for name in reader.inputs)
        rewriter.replace(reader, dataclasses.replace(reader, inputs=inputs))
    head = renamed.get(head, head)
    if not chain:
        producer = graph.producers.get(head)
        if producer is not None and head not in graph.outputs:
            rewriter.replace(producer, dataclasses.replace(producer, outputs=(output,)))
            rewriter.set_type(output, graph.types[head])
            rewriter.redirect(head, output)
            return rewriter.finish()
        # A graph input, or another output: both names stay.
        chain = [Rescale(name=f"{output}.copy", inputs=(head,), outputs=())]
    source, kind = head, graph.types[output if head == inner else head]
    for index, op in enumerate(chain):
        kind = _type_after(op, kind)
        if index == len(chain) - 1:
            result = output
            rewriter.set_type(output, kind)
        else:
            result = rewriter.add_value(f"{output}.{index}", kind)
        name = rewriter.fresh(op.name)
        rewriter.insert_front(
            dataclasses.replace(op, name=name, inputs=(source,), outputs=(result,))
        )
        source = result
    return rewriter.finish()


def _type_after(op: Op, kind: TensorType) -> TensorType:
    match op:
        case ArgMax():
            last = max(1, kind.shape[op.axis] - 1)
            return TensorType(op.infer_shape([kind.shape]), IntType.holding(Range(0, last)))
        case Threshold():
            return TensorType(kind.shape, IntType(1, signed=False))
    return dataclasses.replace(kind, shape=op.infer_shape([kind.shape]))
