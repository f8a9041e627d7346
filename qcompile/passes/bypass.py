"""Taking an operator out of the graph without renaming the graph's outputs."""

from __future__ import annotations

import dataclasses

from qcompile.graph import Graph, Op, Rewriter


def bypass(graph: Graph, op: Op, source: str | None = None) -> Graph | None:
    """The graph in which readers of `op` read `source` (its first input) instead.

    A graph output keeps its name: then the operator that writes `source` writes it under that
    name. None where that is not possible (`source` is an input or an output of the graph itself).
    """
    source = op.inputs[0] if source is None else source
    result = op.output
    rewriter = Rewriter(graph)
    rewriter.remove(op)
    if result not in graph.outputs:
        rewriter.redirect(result, source)
        return rewriter.finish()
    producer = graph.producers.get(source)
    if producer is None or source in graph.outputs:
        return None
    rewriter.replace(producer, dataclasses.replace(producer, outputs=(result,)))
    rewriter.set_type(result, graph.types[source])
    rewriter.redirect(source, result)
    return rewriter.finish()
