"""Kernel choice, tensor placement and arena planning."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from qcompile.graph import Graph
from qcompile.passes.choose_kernels import CONV_KERNELS, INT16, INT32, ChooseKernels, Facts
from qcompile.passes.join_concats import JoinConcats
from qcompile.passes.place_tensors import PlaceTensors, channels_last, natural, split_axes
from qcompile.passes.plan_buffers import Buffer, PlanBuffers
from qcompile.types import IntType, Range
from tests.backends.networks import unet


@st.composite
def buffers(draw: st.DrawFn) -> list[Buffer]:
    result = []
    for index in range(draw(st.integers(0, 12))):
        first = draw(st.integers(0, 10))
        last = first + draw(st.integers(0, 5))
        result.append(Buffer(str(index), draw(st.integers(1, 200)), first, last))
    return result


@given(buffers())
def test_live_buffers_never_overlap(items: list[Buffer]) -> None:
    plan = PlanBuffers(16).run(items)
    for a in items:
        assert plan.offsets[a.name] % 16 == 0
        assert plan.offsets[a.name] + a.size <= plan.size
        for b in items:
            if a is not b and a.overlaps(b):
                first, second = sorted((a, b), key=lambda item: plan.offsets[item.name])
                assert plan.offsets[first.name] + first.size <= plan.offsets[second.name]
    assert plan == PlanBuffers(16).run(items[::-1])


def test_memory_is_reused() -> None:
    chain = [Buffer(str(i), 64, i, i + 1) for i in range(8)]
    assert PlanBuffers().run(chain).size == 128


@given(buffers(), st.data())
def test_written_over_means_at_the_same_place_in_turn(
    items: list[Buffer], data: st.DataObject
) -> None:
    names = [item.name for item in items]
    choice = st.lists(st.sampled_from(names), max_size=2) if names else st.just([])
    items = [dataclasses.replace(item, over=tuple(data.draw(choice))) for item in items]
    plan = PlanBuffers(16).run(items)
    assert plan.size <= PlanBuffers(16).run([dataclasses.replace(i, over=()) for i in items]).size
    for a in items:
        assert plan.offsets[a.name] + a.size <= plan.size
        for b in items:
            if a is b or not a.overlaps(b) or a.first > b.first:
                continue
            first, second = sorted((a, b), key=lambda item: plan.offsets[item.name])
            if plan.offsets[first.name] + first.size > plan.offsets[second.name]:
                assert a.name in b.over
                assert a.last == b.first > a.first
                assert b.size <= a.size
                assert plan.offsets[a.name] == plan.offsets[b.name]


def test_a_chain_in_place_takes_the_memory_of_its_largest() -> None:
    chain = [Buffer(str(i), 64 - i, i, i + 1, (str(i - 1),)) for i in range(8)]
    assert PlanBuffers().run(chain).size == 64


def test_narrow_kernels_where_ranges_allow() -> None:
    graph = unet()
    choices = ChooseKernels().run(graph).values()
    assert {(choice.line, choice.sums) for choice in choices} == {("int16_t", "int32_t")}


def test_wide_sums_take_wide_kernels() -> None:
    graph = unet()
    ops = tuple(
        dataclasses.replace(op, accumulator=IntType(40)) if op.kind == "Conv" else op
        for op in graph.ops
    )
    choices = ChooseKernels().run(dataclasses.replace(graph, ops=ops))
    assert {choices[op.name].sums for op in ops if op.kind == "Conv"} == {"int64_t"}


def test_sixteen_bit_unsigned_inputs_do_not_fit_int16() -> None:
    graph = unet(codes=IntType(16, signed=False))
    choices = ChooseKernels().run(graph).values()
    assert {choice.line for choice in choices} == {"int32_t"}


def test_public_tensors_keep_the_order_of_the_model() -> None:
    graph = unet()
    placements = PlaceTensors().run(graph)
    assert placements["image"] == natural(4)
    assert placements["logits"] == natural(4)
    assert placements[graph.ops[1].output] == channels_last(4)


def test_placement_arithmetic() -> None:
    shape = (1, 3, 4, 5)
    placement = channels_last(4)
    assert placement.physical(shape) == (1, 4, 5, 3)
    assert placement.strides(shape) == (60, 1, 15, 3)
    assert placement.same_memory(natural(4), (1, 1, 4, 5))
    assert not placement.same_memory(natural(4), shape)
    assert split_axes(shape, 1, placement) == (20, 3, 1)
    assert split_axes(shape, 2, placement) == (1, 4, 15)


def test_sums_of_every_row_have_the_type_of_the_epilogue() -> None:
    """32-bit sums if and only if the accumulator fits; the epilogue takes the same type."""
    for inputs in (INT16, INT32):
        for sums in (INT32, Range(-(1 << 40), 1 << 40)):
            for alone in (False, True):
                facts = Facts(inputs, Range(-7, 7), sums, alone)
                row = next(row for row in CONV_KERNELS if row.fits(facts))
                assert (row.sums == "int32_t") == (sums == INT32)
                assert row.kernel == ("conv_depthwise" if alone else "conv")


def joined(graph: Graph) -> set[str]:
    choices, placements = ChooseKernels().run(graph), PlaceTensors().run(graph)
    return set(JoinConcats().run(graph, choices, placements))


def test_a_concat_that_one_convolution_reads_is_joined() -> None:
    graph = unet()
    concat = next(op for op in graph.ops if op.kind == "Concat")
    assert joined(graph) == {concat.output}


def test_a_concat_that_is_an_output_is_not_joined() -> None:
    graph = unet()
    concat = next(op for op in graph.ops if op.kind == "Concat")
    assert not joined(dataclasses.replace(graph, outputs=(*graph.outputs, concat.output)))
