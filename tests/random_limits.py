"""Random limits of codes for quantised networks, as norms and imported models would bring them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import ClassVar

import pytest

from qcompile import quantization
from qcompile.graph import Graph
from qcompile.ops import MOVEMENT, SumOp
from qcompile.ops.code_limits import moved_limits
from qcompile.ops.pointwise import Pointwise
from qcompile.passes.lower_to_integer import LowerToInteger
from qcompile.types import CodebookKind, CodeLimits, Range, TensorType
from qcompile.verifier import verify

FREE = (CodebookKind.UNIFORM, CodebookKind.TERNARY)
"""Codebooks from which codes may be missing."""
FEWEST = 3
"""Codes that are left at least, where the element has them."""


@dataclasses.dataclass(frozen=True)
class AddLimits:
    """Narrows what sums, functions and inputs write, by channel or alike; movement hands it on."""

    seed: int
    name: ClassVar[str] = "add-limits"

    def run(self, graph: Graph) -> Graph:
        rng = Random(self.seed)
        types = dict(graph.types)
        for value in graph.inputs:
            types[value] = self._limited(rng, types[value])
        for op in graph.ops:
            kind = types[op.output]
            inputs = [types[value] for value in op.inputs]
            if isinstance(op, SumOp | Pointwise):
                types[op.output] = self._limited(rng, kind)
            elif isinstance(op, MOVEMENT) and not any(k.is_float for k in (kind, *inputs)):
                types[op.output] = dataclasses.replace(kind, limits=moved_limits(op, inputs))
        return dataclasses.replace(graph, types=types)

    @staticmethod
    def _limited(rng: Random, kind: TensorType) -> TensorType:
        free = kind.codebook is None or kind.codebook.kind in FREE
        if kind.is_float or kind.quantization is None or not free or rng.random() < 0.3:
            return kind
        element = kind.integer
        least = min(FEWEST, element.high - element.low + 1) - 1

        def some() -> Range:
            low = rng.randint(element.low, element.high - least)
            return Range(low, rng.randint(low + least, element.high))

        channels = kind.shape[1] if kind.rank > 1 and rng.random() < 0.7 else 1
        if channels > 1 and rng.random() < 0.4:
            # As many codes in every channel, as a norm behind a ReLU has them.
            span = rng.randint(least, max(least, (element.high - element.low) // 2))
            lows = [rng.randint(element.low, element.high - span) for _ in range(channels)]
            return dataclasses.replace(
                kind, limits=CodeLimits.of([Range(low, low + span) for low in lows])
            )
        return dataclasses.replace(kind, limits=CodeLimits.of([some() for _ in range(channels)]))


@contextmanager
def added_limits(seed: int) -> Iterator[None]:
    """Whatever is compiled here gets limits before it is lowered."""

    class Limited(LowerToInteger):
        def run(self, graph: Graph) -> Graph:
            limited = AddLimits(seed).run(graph)
            verify(limited)
            return super().run(limited)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantization, "LowerToInteger", Limited)
        yield
