"""What a search is about, as one hash: the networks, the data, and the options that matter."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.graph import Graph
from qcompile.options import CompileOptions
from qcompile.printer import print_graph
from qcompile.search.candidate import Problem
from qcompile.search.store import code_digest
from qcompile.types import Array

WITHOUT_EFFECT = (
    *("output", "calib", "data", "data_keys", "config", "dump_ir", "report", "search_cache"),
    *("verify", "taps", "measure", "energy_table", "entry", "separate_weights", "synth"),
    *("verbosity", "workers", "scheduler"),
    *("min_dice", "max_dice_drop", "mean_wbits", "budgeted", "layers", "inputs"),
    *("max_bytes", "max_bops", "max_arena", "max_luts", "max_ram_bits", "wbits", "abits"),
)
"""Options on which no measurement of a plan depends; of data the contents count, not the names."""


def identity_of(problem: Problem) -> str:
    """Equal for problems whose plans measure the same."""
    digest = hashlib.sha256(code_digest().encode())
    for graph in (problem.quantization.graph, problem.reference):
        _add_graph(digest, graph)
    for name, array in _arrays(problem):
        _add_array(digest, name, array)
    if problem.evaluation is not None:
        digest.update(repr((problem.evaluation.cases, problem.evaluation.tiling)).encode())
    digest.update(_options_text(problem.quantization.options).encode())
    return digest.hexdigest()


def _arrays(problem: Problem) -> Iterable[tuple[str, Array]]:
    for feed in (*problem.feeds, *problem.quantization.feeds):
        yield from sorted(feed.items())
    if problem.evaluation is not None:
        for image in problem.evaluation.images:
            yield from sorted(image.items())
        for label in problem.evaluation.labels:
            yield "label", label


def _add_graph(digest: Any, graph: Graph) -> None:
    digest.update(print_graph(graph).encode())
    for name in sorted(graph.constants):
        _add_array(digest, name, graph.constants[name])


def _add_array(digest: Any, name: str, array: Array) -> None:
    digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())


def _options_text(options: CompileOptions) -> str:
    parts = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name in WITHOUT_EFFECT:
            continue
        if isinstance(value, Path) and value.is_file():
            value = hashlib.sha256(value.read_bytes()).hexdigest()
        parts.append(f"{field.name}={value!r}")
    return "\n".join(parts)
