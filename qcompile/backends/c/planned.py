"""A program whose steps are planned and whose memory is not laid out yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qcompile.backends.c.arena import plan_arena
from qcompile.backends.c.names import identifier
from qcompile.backends.c.program import Step
from qcompile.backends.c.row_groups import RowLayout
from qcompile.graph import Graph, Op
from qcompile.passes.place_planes import BitPlanes
from qcompile.passes.plan_buffers import BufferPlan


@dataclass(frozen=True)
class Planned:
    """Steps in order.

    Attributes:
        graph: what they compute; more than the network where operators were added.
        steps: one for each operator that runs.
        rows: how the steps go by rows; None if they do not.
        origins: added operator -> the operator of the network whose output it handles.
        again: multiplications that added operators make.
        planes: the values that lie in bit planes.
    """

    graph: Graph
    steps: Sequence[Step]
    rows: RowLayout | None = None
    origins: Mapping[str, str] = field(default_factory=dict)
    again: int = 0
    planes: Mapping[str, BitPlanes] = field(default_factory=dict)

    def origin(self, op: Op) -> str:
        """The name of the operator of the network that `op` belongs to."""
        return self.origins.get(op.name, op.name)

    def arena(self, keep_all: bool = False) -> BufferPlan:
        """Where everything lies; with `keep_all` every tensor is there, whole, at the end."""
        return plan_arena(self.graph, self.steps, keep_all, self.rows, self.planes)


def step_prefix(index: int, op: Op) -> str:
    """What the names of the constants of operator number `index` begin with."""
    name = identifier(op.name, 24)
    return f"l{index:02d}_{name}" if name else f"l{index:02d}"
