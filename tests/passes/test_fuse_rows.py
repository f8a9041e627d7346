"""Rows instead of tensors: which rows are held, and how operators are grouped."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.graph import Graph
from qcompile.ops import LinearResize
from qcompile.passes.fuse_rows import FuseRows, RowOp, run_group, turns
from qcompile.passes.row_reach import Reach, reaches
from tests.backends.networks import unet
from tests.op_cases import cases_of

KEPT = 1 << 20
"""Rows that no operator of these tests has."""


def window(source: str, size: int, rows: int, stride: int, pad: int, taps: int) -> Reach:
    """What a window along the rows reads."""
    lowest = [min(max(row * stride - pad, 0), size - 1) for row in range(rows)]
    return Reach(source, size, stride, 1, taps - 1 - pad, tuple(lowest))


@st.composite
def networks(draw: st.DrawFn) -> list[RowOp]:
    """Operators that read one or two earlier values of fitting height, or the input."""
    heights = {"in": draw(st.integers(4, 24))}
    found = []
    for index in range(draw(st.integers(1, 7))):
        first = draw(st.sampled_from(sorted(heights)))
        size = heights[first]
        stride = draw(st.sampled_from([1, 1, 2])) if size > 3 else 1
        taps = draw(st.integers(1, 3))
        pad = draw(st.integers(0, taps - 1))
        rows = max(1, (size + 2 * pad - taps) // stride + 1)
        sources = [window(first, size, rows, stride, pad, taps)]
        twins = [name for name, height in heights.items() if height == rows]
        if twins and draw(st.booleans()):
            sources.append(window(draw(st.sampled_from(twins)), rows, rows, 1, 0, 1))
        name = f"v{index}"
        by_rows = draw(st.integers(0, 5)) > 0
        found.append(
            RowOp(
                name,
                rows if by_rows else 1,
                draw(st.integers(1, 50)) * (1 if by_rows else rows),
                tuple(sources) if by_rows else None,
                tuple(dict.fromkeys(reach.source for reach in sources)),
                draw(st.integers(0, 30)),
                eager=by_rows and len(sources) == 1 and draw(st.integers(0, 5)) == 0,
            )
        )
        heights[name] = rows
    return found


def rows_survive(group: Sequence[RowOp], held: Mapping[str, int]) -> bool:
    """Runs the group with rings of the given lengths and looks whether every row that is read is
    still there."""
    index = {op.output: position for position, op in enumerate(group)}
    rings = {op.output: [-1] * held[op.output] for op in group}
    done = [0] * len(group)

    def lacks(position: int) -> list[int]:
        return [
            index[reach.source]
            for reach in group[position].sources or ()
            if reach.source in index
            and not reach.complete(done[position], done[index[reach.source]])
        ]

    for turn in turns(group):
        eager = [p for p, op in enumerate(group) if op.eager and done[p] < op.rows and not lacks(p)]
        wanted = eager[0] if eager else max(p for p, op in enumerate(group) if done[p] < op.rows)
        while lacks(wanted):
            wanted = lacks(wanted)[0]
        assert turn == wanted
        op, row = group[turn], done[turn]
        for reach in op.sources or ():
            if reach.source not in index:
                continue
            top = min((row * reach.step + reach.ahead) // reach.divisor, reach.rows - 1)
            for needed in range(reach.lowest[row], top + 1):
                if rings[reach.source][needed % held[reach.source]] != needed:
                    return False
        rings[op.output][row % held[op.output]] = row
        done[turn] += 1
    return done == [op.rows for op in group]


@given(networks())
@settings(deadline=None)
def test_a_row_lives_until_it_was_read_and_no_ring_is_too_long(ops: list[RowOp]) -> None:
    group = [op for op in ops if op.sources is not None]
    held = dict(run_group(group).rings)
    assert rows_survive(group, held)
    for value, rows in held.items():
        if rows > 1:
            assert not rows_survive(group, held | {value: rows - 1})


def need(ops: Sequence[RowOp], cuts: Sequence[int], public: str) -> int:
    """The largest sum of what lives at the same time, for groups that end at `cuts`."""
    worst = 0
    last = {value: index for index, op in enumerate(ops) for value in op.reads}
    for first, end in itertools.pairwise((0, *cuts)):
        group = ops[first:end]
        if end - first > 1 and any(op.sources is None for op in group):
            return KEPT
        held = run_group(group).rings
        size = max(op.scratch for op in group)
        for index, op in enumerate(ops[:end]):
            dies = last.get(op.output, index)
            if op.output == public or (index < first and dies < first):
                continue
            inside = index >= first and dies < end and end - first > 1
            size += op.row_bytes * (held[op.output] if inside else op.rows)
        worst = max(worst, size)
    return worst


@given(networks())
@settings(deadline=None)
def test_the_groups_are_the_best_of_all(ops: list[RowOp]) -> None:
    public = ops[-1].output
    plan = FuseRows(frozenset(("in", public))).run(ops)
    inner = range(1, len(ops))
    every = [
        need(ops, (*cuts, len(ops)), public)
        for count in range(len(ops))
        for cuts in itertools.combinations(inner, count)
    ]
    assert need(ops, [end for _, end in plan.groups], public) == min(every)
    assert [first for first, _ in plan.groups] == [0, *(end for _, end in plan.groups[:-1])]


def test_between_convolutions_lie_three_rows() -> None:
    chain = [
        RowOp("a", 64, 10, (window("in", 64, 64, 1, 1, 3),), ("in",), 0),
        RowOp("b", 64, 10, (window("a", 64, 64, 1, 1, 3),), ("a",), 0),
        RowOp("c", 32, 10, (window("b", 64, 32, 2, 0, 2),), ("b",), 0),
    ]
    plan = FuseRows(frozenset(("in", "c"))).run(chain)
    assert plan.groups == ((0, 3),)
    assert (plan.rings["a"], plan.rings["b"]) == (3, 2)


@pytest.mark.parametrize("stem", ["conv", "conv_transpose", "nearest_resize", "linear_resize"])
def test_bounds_cover_what_is_read_and_hardly_more(stem: str) -> None:
    """Whatever an operator reads for a row lies between the first row and the bound."""
    seen = 0
    for case in cases_of(stem):
        op = next(op for op in case.graph.ops if op.kind.lower() == stem.replace("_", ""))
        found = reaches(case.graph, op, op.inputs[:1])
        if found is None:
            continue
        (reach,) = found
        rows = case.graph.output_type(op).shape[2]
        for row in range(rows):
            assert reach.complete(row, reach.rows)
            assert 0 <= reach.lowest[row] < reach.rows
        if isinstance(op, LinearResize):
            for row, second in enumerate(op.taps[0].second):
                assert not reach.complete(row, second)
        seen += 1
    assert seen


def test_what_mixes_rows_has_no_reach() -> None:
    graph: Graph = unet()
    pool = next(op for op in graph.ops if op.kind == "MaxPool")
    assert reaches(graph, pool, pool.inputs) is not None
    kind = graph.types[pool.inputs[0]]
    batch = dataclasses.replace(kind, shape=(2, *kind.shape[1:]))
    types = {**graph.types, pool.inputs[0]: batch}
    assert reaches(dataclasses.replace(graph, types=types), pool, pool.inputs) is None
