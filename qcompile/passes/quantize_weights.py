"""Weights become codes with one scale per output channel.

Conv(%x, @w f32[16,1,3,3], @b)   ->   Conv(%x, @w i4n[16,1,3,3] with 16 scales, @b')
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import WEIGHTED
from qcompile.passes.compensation import NEAREST, Compensation, Recipe, Solved
from qcompile.passes.weight_quantizers import exact_rows, quantize_rows
from qcompile.passes.weight_rows import channel_axis, from_rows, to_rows
from qcompile.plan import Format, Plan
from qcompile.types import Array, Quantization, TensorType


@dataclass(frozen=True)
class QuantizeWeights:
    """Quantizes the weights of Conv, ConvTranspose and MatMul as the plan says.

    Each weight takes its nearest code, unless there are images and a recipe: then the codes of a
    layer are those that keep its output (`compensation.py`), and its bias makes up for the rest.

    Attributes:
        plan: the formats.
        recipe: how codes are found.
        reference: the float graph, whose outputs the layers are to keep.
        feeds: calibration images, preprocessed.
        seed: of the sampled positions.
        progress: called with (done, total) operators.
    """

    name: ClassVar[str] = "quantize-weights"
    plan: Plan
    recipe: Recipe = NEAREST
    reference: Graph | None = None
    feeds: Sequence[Mapping[str, Array]] = ()
    seed: int = 0
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)

    def run(self, graph: Graph) -> Graph:
        formats = {op.name: weight_format(self.plan, op) for op in graph.ops}
        if self.recipe.positions and self.feeds and self.reference is not None:
            solved = Compensation(
                graph, self.reference, formats, self.recipe, self.feeds, self.seed
            ).run(self.progress)
        else:
            solved = {
                op.name: _nearest(graph, op, chosen)
                for op in graph.ops
                if (chosen := formats[op.name]) is not None
            }
        rewriter = Rewriter(graph)
        for op in graph.ops:
            if op.name in solved:
                rewriter.replace(op, _placed(graph, rewriter, op, solved[op.name]))
        return rewriter.finish()


def weight_format(plan: Plan, op: Op) -> Format | None:
    """The format that an operator's weights get; None where there are none or they stay float."""
    layer = plan.layers.get(op.name)
    if not isinstance(op, WEIGHTED) or layer is None or layer.weights is None:
        return None
    return None if layer.weights.is_float else layer.weights


def _nearest(graph: Graph, op: Op, chosen: Format) -> Solved:
    rows = to_rows(op, graph.constants[op.inputs[1]])
    return Solved(exact_rows(rows, chosen) or quantize_rows(rows, chosen), None)


def _placed(graph: Graph, rewriter: Rewriter, op: Op, solved: Solved) -> Op:
    """The operator with codes for weights, and with a new bias if there is one."""
    inputs = op.inputs
    if solved.rows is not None:
        weights, rows = op.inputs[1], solved.rows
        shape = graph.types[weights].shape
        scales = Quantization(tuple(rows.scales.tolist()), channel_axis(op))
        kind = TensorType(shape, rows.element, scales, rows.codebook)
        codes = from_rows(op, rows.codes, shape).astype(rows.element.storage)
        # Shared weights may be needed in another format elsewhere: each layer has its own.
        name = rewriter.add_constant(f"{weights}.codes", codes, kind)
        inputs = (inputs[0], name, *inputs[2:])
    if solved.bias is not None:
        bias = solved.bias.astype(np.float32)
        kind = TensorType(bias.shape)
        inputs = (*inputs[:2], rewriter.add_constant(f"{op.name}.bias", bias, kind))
    return dataclasses.replace(op, inputs=inputs)
