"""Tables and softmax read few bits: wider values are rescaled in front of them.

%y = Sigmoid(%x i16)   ->   %n i12 = Rescale(%x)   %y = Sigmoid(%n)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from qcompile.graph import Graph, Rewriter
from qcompile.lowering.published import TABLE_BITS
from qcompile.ops import Pointwise, Rescale, Softmax
from qcompile.plan import Format, Plan


def narrow_table_inputs(
    graph: Graph, plan: Plan
) -> tuple[Graph, Mapping[str, Format], Mapping[str, str]]:
    """Puts a Rescale before tables whose input is too wide.

    Returns the graph, the format of every value, and narrowed value -> the value it came from.
    """
    narrowed: dict[str, str] = {}
    formats = {name: layer.output for name, layer in plan.inputs.items()}
    formats.update({op.output: plan.layers[op.name].output for op in graph.ops})
    rewriter = Rewriter(graph)
    for op in graph.ops:
        if not isinstance(op, Pointwise | Softmax):
            continue
        chosen = formats[op.inputs[0]]
        if chosen.is_float or chosen.bits <= TABLE_BITS or formats[op.output].is_float:
            continue
        value = rewriter.add_value(f"{op.inputs[0]}.narrow")
        formats[value] = Format(TABLE_BITS, chosen.quantizer)
        narrowed[value] = op.inputs[0]
        narrow = Rescale(
            name=rewriter.fresh(f"{op.name}/narrow"), inputs=op.inputs[:1], outputs=(value,)
        )
        # A softmax keeps its mask.
        rewriter.replace(op, narrow, dataclasses.replace(op, inputs=(value, *op.inputs[1:])))
    return rewriter.finish(), formats, narrowed
