"""Quantises small float graphs the way the compiler does, for tests of the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qcompile.boundary import InputKind, InputSpec
from qcompile.graph import Graph
from qcompile.logits import logits_sqnr
from qcompile.options import CompileOptions
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.calibrate import calibrate
from qcompile.quantization import Lowered, Quantization

Feeds = Sequence[Mapping[str, Any]]


def images(graph: Graph, count: int = 4, seed: int = 3) -> Feeds:
    """Smooth random images: neighbours are alike, as in pictures."""
    rng = np.random.default_rng(seed)
    found: list[Mapping[str, Any]] = []
    for _ in range(count):
        feed = {}
        for name in graph.inputs:
            data = rng.normal(size=graph.types[name].shape)
            for axis in range(2, data.ndim):
                data = data + np.roll(data, 1, axis)
            feed[name] = data.astype(np.float32)
        found.append(feed)
    return found


def specs(graph: Graph) -> dict[str, InputSpec]:
    return dict.fromkeys(graph.inputs, InputSpec(InputKind.FLOAT32))


def options(**fields: Any) -> CompileOptions:
    plain = {"wbits": "4", "abits": "6", "calib": "given", "input_kind": "float32"}
    return CompileOptions(**(plain | fields))


def quantization(graph: Graph, feeds: Feeds, **fields: Any) -> Quantization:
    return Quantization(graph, calibrate(graph, feeds), specs(graph), options(**fields), feeds)


def lowered(graph: Graph, feeds: Feeds, **fields: Any) -> Lowered:
    found = quantization(graph, feeds, **fields)
    return found.lowered(assign_formats(graph, found.options))


def decibels(graph: Graph, feeds: Feeds, judged: Feeds | None = None, **fields: Any) -> float:
    """Signal to noise of the last sums, on other images if these are given."""
    found = lowered(graph, feeds, **fields)
    mark = logits_sqnr(graph, found.integer, judged or feeds, specs(graph))
    assert mark is not None
    return mark
