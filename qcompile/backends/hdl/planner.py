"""What a planner of one operator must offer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from qcompile.errors import Unsupported
from qcompile.graph import Graph, Op
from qcompile.hw.products import MultiplierSize
from qcompile.hw.stage import Fold, Stage
from qcompile.hw.streams import TensorStream
from qcompile.types import TensorType


class Planner(Protocol):
    """Makes the hardware of one operator, in any of its foldings."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        """Why hardware cannot have this operator, None if it can."""
        ...

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        """All parallelisms it can be built with."""
        ...

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        """Its blocks; `multiplier` is that of the device, None if it has none."""
        ...


def tensor_stream(kind: TensorType, lanes: int) -> TensorStream:
    """The stream of a tensor [1, C, H, W], [1, C] or, a map of one channel, [1, H, W]."""
    if kind.rank == 4:
        _, channels, height, width = kind.shape
    elif kind.rank == 3:
        (_, height, width), channels = kind.shape, 1
    else:
        (_, channels), height, width = kind.shape, 1, 1
    return TensorStream(height, width, channels, kind.integer, lanes)


def channels_of(kind: TensorType) -> int:
    """Channels of the tensor as a stream."""
    return 1 if kind.rank == 3 else kind.shape[1]


def divisors(number: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    return tuple(d for d in range(1, number + 1) if number % d == 0)


def lanes_to_serialise(parallel: int, cycles: int) -> int:
    """Fewest lanes that pass `parallel` results, which come every `cycles` cycles, in time."""
    return next(lanes for lanes in divisors(parallel) if parallel // lanes <= cycles)


def refuse(op: Op, reason: str, advice: str) -> Unsupported:
    """What `check` reports of an operator."""
    return Unsupported(op.kind, op.name, reason, advice)
