"""Tensors that meet in a concatenation: they share a scale, and so they get one width.

With different widths the narrower one would be cut off, or the wider one as coarse as it.
"""

from __future__ import annotations

from qcompile.graph import Graph
from qcompile.ops import MOVEMENT, Concat


def origins(graph: Graph, value: str) -> list[str]:
    """The values that movement operators make `value` of."""
    producer = graph.producers.get(value)
    if producer is None or not isinstance(producer, MOVEMENT):
        return [value]
    sources = [name for name in producer.inputs if not graph.is_constant(name)]
    return [origin for name in sources for origin in origins(graph, name)]


def joined(graph: Graph) -> dict[str, str]:
    """For every value that is computed or fed, the name that its group goes by.

    That is the operator that computes the group's first value, or the graph input that is it.
    """
    order = {value: index for index, value in enumerate(graph.activations())}
    groups = {value: {value} for value in order}
    for op in graph.ops:
        if isinstance(op, Concat):
            merged = set().union(*(groups[value] for value in origins(graph, op.output)))
            for value in merged:
                groups[value] = merged
    firsts = {value: min(group, key=order.__getitem__) for value, group in groups.items()}
    names = {op.output: op.name for op in graph.ops}
    return {value: names.get(first, first) for value, first in firsts.items()}


def members(graph: Graph) -> dict[str, list[str]]:
    """Name of a group -> the operators (and graph inputs) whose values are in it."""
    found: dict[str, list[str]] = {}
    for value, leader in joined(graph).items():
        producer = graph.producers.get(value)
        found.setdefault(leader, []).append(value if producer is None else producer.name)
    return found
