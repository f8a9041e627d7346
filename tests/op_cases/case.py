"""One operator test case: a complete graph of the integer stage and values for its inputs."""

from __future__ import annotations

from dataclasses import dataclass

from qcompile.graph import Graph
from qcompile.types import Array


@dataclass(frozen=True)
class OpCase:
    """A single-operator graph whose integer inputs and outputs are raw codes.

    `feeds` holds one array of the input type's storage dtype for every graph input.
    """

    name: str
    graph: Graph
    feeds: dict[str, Array]
