"""What a pass is, and the loop that runs a list of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol

from qcompile.graph import Graph
from qcompile.verifier import verify

logger = logging.getLogger("qcompile")

Dump = Callable[[str, Graph], None]
"""dump(name of the pass just run, its result)"""

Step = Callable[[Graph], Graph | None]
"""One local rewrite: the edited graph, or None where nothing is left to do."""


class Pass(Protocol):
    """A function from graph to graph; its fields are its options."""

    name: ClassVar[str]

    def run(self, graph: Graph) -> Graph:
        """The next graph; `graph` itself is never changed."""
        ...


def run_passes(graph: Graph, passes: Iterable[Pass], dump: Dump | None = None) -> Graph:
    """Runs `passes` in order and verifies the graph before the first and after each one.

    Args:
        graph: where to start.
        passes: what to run.
        dump: told of every result, and of the start under the name 'start'.

    Raises:
        GraphError: a graph breaks a rule; a bug of the pass before it (or of the importer).
    """
    verify(graph)
    if dump is not None:
        dump("start", graph)
    for current in passes:
        graph = current.run(graph)
        logger.debug("pass %s: %d operators", current.name, len(graph.ops))
        verify(graph)
        if dump is not None:
            dump(current.name, graph)
    return graph


def until_stable(graph: Graph, step: Step) -> Graph:
    """Repeats a local rewrite until it finds nothing more."""
    while (edited := step(graph)) is not None:
        graph = edited
    return graph
