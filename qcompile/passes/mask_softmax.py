"""Attention masks become masks of the softmax behind them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.errors import Unsupported, UnsupportedError
from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import IDENTITY, Add, MaskedFill, Reshape, Softmax, Transpose
from qcompile.passes.base import until_stable
from qcompile.passes.parameters import add_float
from qcompile.types import Array

NEVER = -50.0
"""exp of this is 2e-22: beside any score that is not as low, the element has no weight."""


@dataclass(frozen=True, slots=True)
class MaskSoftmax:
    """Elements that a mask makes (almost) minus infinity take no part in the softmax.

    Before::

        %a = Add(%scores, @mask)          0 and -100 (shifted windows), or minus infinity
        %b = Reshape(%a)
        %y = Softmax(%b)

    After::

        %b = Reshape(%scores)
        %y = Softmax(%b, @takes_part)

    Integers have no minus infinity: added to the scores, the mask would take their codes.
    """

    name: ClassVar[str] = "mask-softmax"

    def run(self, graph: Graph) -> Graph:
        result = until_stable(graph, _mask_one)
        left = [
            Unsupported(
                op.kind,
                op.name,
                "fills in an infinite number, and what reads it is no softmax",
                "fill in a finite number, or mask the scores right before the softmax",
            )
            for op in result.ops
            if isinstance(op, MaskedFill) and not math.isfinite(op.value)
        ]
        if left:
            raise UnsupportedError(left, "the compiler")
        return result


def _mask_one(graph: Graph) -> Graph | None:
    for op in graph.ops:
        if not isinstance(op, Softmax):
            continue
        path: list[Op] = []
        value = op.inputs[0]
        reader: Op = op
        while graph.only_consumer(value) is reader:
            source = graph.producers.get(value)
            if isinstance(source, MaskedFill) and source.value <= NEVER:
                mask = graph.constants[source.inputs[1]] != 0
                return _masked(graph, op, source, source.inputs[0], path, mask)
            if isinstance(source, Add) and source.activation == IDENTITY:
                edited = _added_mask(graph, op, source, path)
                if edited is not None:
                    return edited
            if not isinstance(source, Reshape | Transpose):
                break
            path.append(source)
            value, reader = source.inputs[0], source
    return None


def _added_mask(graph: Graph, softmax: Softmax, op: Add, path: Sequence[Op]) -> Graph | None:
    """An Add whose constant is partly below `NEVER`."""
    for which in (0, 1):
        x, other = op.inputs[1 - which], op.inputs[which]
        if not graph.is_constant(other) or graph.types[x].shape != graph.types[op.output].shape:
            continue
        if op.weights[1 - which] != 1:
            continue
        data = graph.constants[other] * op.weights[which]
        low = data <= NEVER
        if not low.any() or low.all() or (data[~low] <= NEVER / 2).any():
            continue
        rest = np.where(low, 0, data)
        if not rest.any():
            return _masked(graph, softmax, op, x, path, ~low)
        rewriter = Rewriter(graph)
        constant = add_float(rewriter, f"{op.name}.rest", rest)
        value = rewriter.add_value(f"{op.output}.bias", graph.types[op.output])
        mask = add_float(rewriter, f"{op.name}.mask", (~low).astype(np.float32))
        added = dataclasses.replace(
            op,
            name=rewriter.fresh(f"{op.name}.bias"),
            inputs=(x, constant),
            outputs=(value,),
            weights=(1, 1),
        )
        fill = MaskedFill(name=op.name, inputs=(value, mask), outputs=op.outputs, value=-math.inf)
        rewriter.replace(op, added, fill)
        return rewriter.finish()
    return None


def _masked(
    graph: Graph, softmax: Softmax, fill: Op, x: str, path: Sequence[Op], mask: Array
) -> Graph:
    """The softmax with the mask, which goes the same way as the scores; `fill` is left out."""
    full = np.broadcast_to(mask, graph.types[fill.output].shape)
    for op in reversed(path):
        if isinstance(op, Reshape):
            full = full.reshape(op.shape)
        else:
            assert isinstance(op, Transpose)
            full = full.transpose(op.permutation)
    if len(softmax.inputs) > 1:
        full = full & (graph.constants[softmax.inputs[1]] != 0)
    rewriter = Rewriter(graph)
    name = add_float(rewriter, f"{softmax.name}.mask", compact(full).astype(np.float32))
    rewriter.redirect(fill.output, x)
    rewriter.replace(softmax, dataclasses.replace(softmax, inputs=(softmax.inputs[0], name)))
    return rewriter.finish()


def compact(mask: Array) -> Array:
    """The smallest array that broadcasts to the same: axes along which nothing changes have size 1
    in it."""
    for axis in range(mask.ndim):
        first = mask.take([0], axis)
        if (mask == first).all():
            mask = first
    return mask
