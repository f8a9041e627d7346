from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest

from qcompile.errors import GraphError
from qcompile.graph import Graph
from qcompile.passes.base import run_passes
from qcompile.passes.fuse_activations import FuseActivations
from tests.passes.nets import Net


class Careless:
    name: ClassVar[str] = "careless"

    def run(self, graph: Graph) -> Graph:
        return dataclasses.replace(graph, ops=())


def test_dumps_the_start_and_every_result() -> None:
    net = Net(x=(1, 3, 4, 4))
    graph = net.graph(net.conv("c", "x", 2))
    seen: list[str] = []
    run_passes(graph, [FuseActivations(), FuseActivations()], lambda name, _: seen.append(name))
    assert seen == ["start", "fuse-activations", "fuse-activations"]


def test_a_pass_that_breaks_the_graph_is_found() -> None:
    net = Net(x=(1, 3, 4, 4))
    graph = net.graph(net.conv("c", "x", 2))
    with pytest.raises(GraphError, match="nothing writes output 'c'"):
        run_passes(graph, [Careless()])
    with pytest.raises(GraphError, match="nothing writes output 'c'"):
        run_passes(Careless().run(graph), [])
