"""Grids that came with the model become types of the values on them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import MOVEMENT, FakeQuantize, Pad, PadMode, Pointwise, Rescale, SumOp
from qcompile.ops.fake_quantize import rounded
from qcompile.passes.base import until_stable
from qcompile.passes.bypass import bypass
from qcompile.passes.imported_codes import take_codes
from qcompile.types import Codebook, CodebookKind, CodeLimits, Range, TensorType

FINER_BITS = 15
WIDEST_FINE = 30
"""Fraction bits of a value that several quantizers read, and the most bits it may have."""


@dataclass(frozen=True, slots=True)
class AbsorbQuantizers:
    """Every `FakeQuantize` becomes the type of a value, every weight on a grid its codes.

    Before::

        %t = Conv 'c'(%x, @w, @b) activation=relu
        %y = FakeQuantize 'q'(%t) scale=0.02 low=0 high=255

    After, %y being a float with a quantization, which `QuantizeActivations` takes as it is::

        %y = Conv 'c'(%x, @w.codes, @b.codes) activation=relu

    Through operators that only move values a quantizer goes to their inputs. Where %t is on another
    grid already, or something else reads it as well, a `Rescale` stays to change the grid; a value
    that several quantizers read in different ways gets a grid of its own, much finer than theirs.
    """

    name: ClassVar[str] = "absorb-quantizers"

    def run(self, graph: Graph) -> Graph:
        for step in (_move_one, _merge_twins, _absorb_one):
            graph = until_stable(graph, step)
        return take_codes(graph)


def _move_one(graph: Graph) -> Graph | None:
    """Quantizers go through movement to the real numbers that are moved."""
    for op in graph.ops:
        source = op.inputs[0]
        producer = graph.producers.get(source)
        if (
            isinstance(op, FakeQuantize)
            and isinstance(producer, MOVEMENT)
            and not op.binary
            and graph.only_consumer(source) is op
            and not _on_grid(graph, source)
        ):
            return _through_movement(graph, op, producer, graph.output_type(op))
    return None


def _on_grid(graph: Graph, value: str) -> bool:
    producer = graph.producers.get(value)
    if isinstance(producer, MOVEMENT):
        return all(_on_grid(graph, source) for source in producer.inputs)
    return isinstance(producer, FakeQuantize) or graph.types[value].quantization is not None


def _merge_twins(graph: Graph) -> Graph | None:
    """Quantizers of one value that do the same are one."""
    seen: dict[FakeQuantize, FakeQuantize] = {}
    for op in graph.ops:
        if isinstance(op, FakeQuantize) and op.output not in graph.outputs:
            twin = seen.setdefault(dataclasses.replace(op, name="", outputs=()), op)
            if twin is not op:
                return bypass(graph, op, twin.output)
    return None


def _absorb_one(graph: Graph) -> Graph | None:
    for op in graph.ops:
        if isinstance(op, FakeQuantize):
            if graph.types[op.inputs[0]].quantization is not None:
                return _change_grid(graph, op)
            return _into_producer(graph, op)
        if isinstance(op, MOVEMENT) and graph.output_type(op).quantization is None:
            kind = _moved(graph, op)
            if kind is not None:
                rewriter = Rewriter(graph)
                rewriter.set_type(op.output, kind)
                return rewriter.finish()
    return None


def _moved(graph: Graph, op: Op) -> TensorType | None:
    """The grid of what an operator moves, if all its inputs are on the same one."""
    kinds = graph.input_types(op)
    grids = {kind.quantization for kind in kinds}
    if len(grids) > 1 or None in grids or any(kind.limits is None for kind in kinds):
        return None
    return _joined(graph.output_type(op), kinds, op)


def _joined(output: TensorType, kinds: tuple[TensorType, ...], op: Op) -> TensorType:
    codes = reduce(Range.union, (kind.limits.range for kind in kinds if kind.limits is not None))
    grid = kinds[0].quantization
    assert grid is not None
    if isinstance(op, Pad) and op.mode is PadMode.CONSTANT:
        code = round(op.value / grid.scale[0])
        codes = codes.union(Range(code, code))
    books = {kind.codebook for kind in kinds}
    uniform = Codebook(CodebookKind.UNIFORM, codes.high - codes.low + 1)
    same = len(books) == 1 and not isinstance(op, Pad)
    limits = CodeLimits((codes.low,), (codes.high,))
    return TensorType(
        output.shape, output.element, grid, kinds[0].codebook if same else uniform, limits
    )


def _change_grid(graph: Graph, op: FakeQuantize) -> Graph:
    """A quantizer behind a value that is on a grid already."""
    source = op.inputs[0]
    before, after = graph.types[source], op.annotated(graph.output_type(op))
    assert before.quantization is not None
    assert before.limits is not None
    assert after.limits is not None
    same_scale = before.quantization.scale == (op.scale,)
    inside = after.limits.range.contains(before.limits.range)
    if same_scale and inside and not op.binary:
        dropped = bypass(graph, op)
        if dropped is not None:
            return dropped
    low = max(before.limits.range.low, after.limits.range.low)
    high = min(before.limits.range.high, after.limits.range.high)
    producer = graph.producers.get(source)
    if (
        same_scale
        and low <= high
        and not op.binary
        and isinstance(producer, SumOp | Pointwise)
        and graph.only_consumer(source) is op
    ):
        # QuantizeLinear to 8 bits and a Clip to 6 are one clamp.
        codes = CodeLimits((low,), (high,))
        book = Codebook(CodebookKind.UNIFORM, high - low + 1)
        kind = dataclasses.replace(before, limits=codes, codebook=book)
        return _written_by(graph, op, producer, kind)
    return _as_rescale(graph, op)


def _into_producer(graph: Graph, op: FakeQuantize) -> Graph:
    """A quantizer behind a value without a grid."""
    source = op.inputs[0]
    kind = op.annotated(graph.output_type(op))
    producer = graph.producers.get(source)
    alone = graph.only_consumer(source) is op
    if alone and isinstance(producer, SumOp | Pointwise):
        return _written_by(graph, op, producer, kind)
    if alone and isinstance(producer, MOVEMENT) and not op.binary:
        return _through_movement(graph, op, producer, kind)
    if alone and source in graph.inputs and op.output not in graph.outputs:
        rewriter = Rewriter(graph)
        rewriter.set_type(source, kind)
        rewriter.remove(op)
        rewriter.redirect(op.output, source)
        return rewriter.finish()
    if isinstance(producer, SumOp | Pointwise) or source in graph.inputs:
        return _on_finer_grid(graph, op)
    return _as_rescale(graph, op)


def _on_finer_grid(graph: Graph, op: FakeQuantize) -> Graph:
    """Several quantizers and nothing else read a value: it is kept so finely that rounding it
    first makes no difference but within 2**-16 steps of a tie."""
    source = op.inputs[0]
    readers = [reader for reader in graph.consumers[source] if isinstance(reader, FakeQuantize)]
    if len(readers) < len(graph.consumers[source]) or source in graph.outputs:
        return _as_rescale(graph, op)
    ends = [code * reader.scale for reader in readers for code in (reader.low, reader.high)]
    step = min(reader.scale for reader in readers)
    bits = math.ceil(math.log2(max(map(abs, ends)) / step))
    step = step * 2.0 ** -max(0, min(FINER_BITS, WIDEST_FINE - bits))
    fine = FakeQuantize(
        name="",
        inputs=(source,),
        outputs=(source,),
        scale=step,
        low=math.floor(min(0.0, *ends) / step),
        high=math.ceil(max(ends) / step),
    )
    rewriter = Rewriter(graph)
    rewriter.set_type(source, fine.annotated(graph.types[source]))
    return rewriter.finish()


def _written_by(graph: Graph, op: FakeQuantize, producer: Op, kind: TensorType) -> Graph:
    rewriter = Rewriter(graph)
    rewriter.remove(op)
    rewriter.replace(producer, dataclasses.replace(producer, outputs=op.outputs))
    rewriter.set_type(op.output, kind)
    return rewriter.finish()


def _as_rescale(graph: Graph, op: FakeQuantize) -> Graph:
    rewriter = Rewriter(graph)
    rewriter.replace(op, Rescale(name=op.name, inputs=op.inputs, outputs=op.outputs))
    rewriter.set_type(op.output, op.annotated(graph.output_type(op)))
    return rewriter.finish()


def _through_movement(graph: Graph, op: FakeQuantize, moves: Op, kind: TensorType) -> Graph:
    """Moving commutes with rounding, so the inputs are rounded (and the constant of a Pad)."""
    rewriter = Rewriter(graph)
    rewriter.remove(op)
    quantizers: list[Op] = []
    sources: dict[str, str] = {}
    for value in dict.fromkeys(moves.inputs):
        source = graph.types[value]
        sources[value] = rewriter.add_value(f"{op.output}.before", TensorType(source.shape))
        name = op.name if not quantizers else rewriter.fresh(op.name)
        quantizers.append(
            dataclasses.replace(op, name=name, inputs=(value,), outputs=(sources[value],))
        )
    inputs = tuple(sources[value] for value in moves.inputs)
    moved = dataclasses.replace(moves, inputs=inputs, outputs=op.outputs)
    if isinstance(moved, Pad) and moved.mode is PadMode.CONSTANT:
        steps = rounded(np.asarray(moved.value / op.scale), op.rounding)
        code = min(max(float(steps), op.low), op.high)
        moved = dataclasses.replace(moved, value=code * op.scale)
    rewriter.replace(moves, *quantizers, moved)
    rewriter.set_type(op.output, kind)
    return rewriter.finish()
