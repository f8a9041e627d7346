"""Rows that wait long: stored densely, or computed again."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.passes.store_rows import Extended, PackRows, UnpackRows, cone, with_packed
from qcompile.passes.store_rows import with_recomputed as recomputed
from qcompile.sim.executor import Executor
from qcompile.types import IntType
from tests.backends.networks import image, unet


def skip() -> tuple[Extended, str, frozenset[str]]:
    """A U-Net, its first skip connection, and the name of the concatenation that reads it."""
    graph = unet(size=32)
    concat = next(op for op in reversed(graph.ops) if op.kind == "Concat")
    value = next(v for v in concat.inputs if len(graph.consumers[v]) > 1)
    return Extended(graph, {}), value, frozenset([concat.name])


def test_the_cone_is_all_that_a_value_needs() -> None:
    extended, value, _ = skip()
    ops = cone(extended.graph, value)
    known = {*extended.graph.inputs, *extended.graph.constants}
    for op in ops:
        assert known >= set(op.inputs)
        known |= set(op.outputs)
    assert ops[-1].output == value
    outputs = {op.output for op in ops}
    for op in ops[:-1]:
        assert any(op.output in other.inputs for other in ops if other.output in outputs)


def test_recomputed_rows_are_the_same_values() -> None:
    extended, value, readers = skip()
    ops = cone(extended.graph, value)
    again = recomputed(extended, ops, readers)
    (concat,) = (op for op in again.graph.ops if op.name in readers)
    assert value not in concat.inputs
    copy = next(v for v in concat.inputs if v in again.added)
    feeds = image(extended.graph)
    values = Executor(again.graph).run(feeds, taps="all")
    np.testing.assert_array_equal(values[copy], values[value])
    for output, expected in Executor(extended.graph).run(feeds).items():
        np.testing.assert_array_equal(values[output], expected)
    assert len(again.added) == len(ops)
    assert {again.origins[op.name] for op in again.graph.ops if op.output in again.added} == {
        op.name for op in ops
    }


def test_copies_of_copies_belong_to_the_network() -> None:
    extended, value, readers = skip()
    once = recomputed(extended, cone(extended.graph, value), readers)
    copy = next(v for v in once.graph.consumers if v in once.added and v.startswith(value))
    twice = recomputed(once, cone(once.graph, copy), readers)
    assert set(twice.origins.values()) <= {op.name for op in extended.graph.ops}
    assert twice.multiplications == 2 * once.multiplications > 0


def test_packed_rows_are_stored_between_writer_and_reader() -> None:
    extended, value, readers = skip()
    packed = with_packed(extended, value, readers)
    assert packed is not None
    kinds = [type(op) for op in packed.graph.ops]
    position = next(i for i, op in enumerate(packed.graph.ops) if op.output == value)
    assert kinds[position + 1] is PackRows
    reader = next(i for i, op in enumerate(packed.graph.ops) if op.name in readers)
    assert kinds[reader - 1] is UnpackRows
    kind = extended.graph.types[value]
    stored = packed.graph.types[packed.graph.ops[position + 1].output]
    _, channels, height, width = kind.shape
    assert stored.shape == (1, channels * width * kind.integer.bits // 8, height, 1)
    assert packed.multiplications == 0


@pytest.mark.parametrize("bits", [8, 16])
def test_full_bytes_are_not_packed(bits: int) -> None:
    graph = unet(codes=IntType(bits, signed=False), size=32)
    concat = next(op for op in reversed(graph.ops) if op.kind == "Concat")
    value = next(v for v in concat.inputs if len(graph.consumers[v]) > 1)
    assert with_packed(Extended(graph, {}), value, frozenset([concat.name])) is None
