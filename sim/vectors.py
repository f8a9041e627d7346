"""Test vectors beside a network file: inputs and the outputs that every execution must give."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from qcompile.graph import Graph
from qcompile.types import Array

_EPOCH = (1980, 1, 1, 0, 0, 0)


def vectors_bytes(graph: Graph, vectors: Sequence[Mapping[str, Array]]) -> bytes:
    """An .npz archive with `in/<name>` and `out/<name>`, stacked over the vectors [N, ...].

    Characters of names that are no letter, digit, dot or hyphen become `_` (a further `_` tells
    names apart that thus become alike).

    Args:
        graph: tells inputs and outputs.
        vectors: for each, all inputs and outputs by value name ([1, ...]).
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder, names in (("in", graph.inputs), ("out", graph.outputs)):
            taken: set[str] = set()
            for name in names:
                content = io.BytesIO()
                stack = np.concatenate([vector[name] for vector in vectors])
                np.lib.format.write_array(content, np.ascontiguousarray(stack), allow_pickle=False)
                safe = _safe(name)
                while safe in taken:
                    safe += "_"
                taken.add(safe)
                member = zipfile.ZipInfo(f"{folder}/{safe}.npy", _EPOCH)
                member.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(member, content.getvalue())
    return buffer.getvalue()


def _safe(name: str) -> str:
    """An archive member that no extraction can place elsewhere."""
    return "".join(char if char.isalnum() or char in "._-" else "_" for char in name).strip(".")
