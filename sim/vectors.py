"""Test vectors beside a network file: inputs and the outputs that every execution must give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qcompile.graph import Graph
from qcompile.sim.archive import archive_bytes, safe_member
from qcompile.types import Array


def vectors_bytes(graph: Graph, vectors: Sequence[Mapping[str, Array]]) -> bytes:
    """An .npz archive with `in/<name>` and `out/<name>`, stacked over the vectors [N, ...].

    Characters of names that are no letter, digit, dot or hyphen become `_` (a further `_` tells
    names apart that thus become alike).

    Args:
        graph: tells inputs and outputs.
        vectors: for each, all inputs and outputs by value name ([1, ...]).
    """
    arrays: dict[str, Array] = {}
    for folder, names in (("in", graph.inputs), ("out", graph.outputs)):
        for name in names:
            member = f"{folder}/{safe_member(name)}"
            while member in arrays:
                member += "_"
            arrays[member] = np.concatenate([vector[name] for vector in vectors])
    return archive_bytes(arrays)
