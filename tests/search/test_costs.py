from __future__ import annotations

from qcompile.backends.c.backend import CBackend
from qcompile.graph import Graph
from qcompile.ops import Concat
from qcompile.options import CompileOptions, LayerOverride
from qcompile.passes.assign_formats import assign_formats
from qcompile.search.cost import (
    LayerSum,
    bit_operations,
    layers_of,
    ram_bits,
    weight_bits,
    weight_bytes,
)
from qcompile.search.costs_of_graph import costs_of
from qcompile.search.greedy import Part
from qcompile.search.slots import (
    output_formats,
    uniform_plan,
    weight_formats,
    widths_of,
    widths_plan,
)
from qcompile.target_hdl import hdl_backend
from tests.op_cases import cases_of
from tests.passes.nets import Net


def network() -> Graph:
    """A skip: 'c' reads 'a' and 'b'."""
    net = Net(x=(1, 1, 8, 8))
    a = net.conv("a", "x", 4)
    b = net.conv("b", a, 4)
    joined = net.add("joined", Concat, a, b, axis=1)
    c = net.conv("c", joined, 4)
    return net.graph(net.conv("last", c, 2, kernel=1, pad=0))


def test_slots_leave_out_what_has_its_width_already() -> None:
    graph = network()
    options = CompileOptions(max_bops="50%")
    plan = assign_formats(graph, options)
    weights = weight_formats(graph, plan, options)
    assert {name: [item.bits for item in found] for name, found in weights.items()} == {
        "b": [2, 3, 4, 5, 6, 7, 8],
        "c": [2, 3, 4, 5, 6, 7, 8],
    }
    outputs = output_formats(graph, plan, options)
    # 'a' stands for 'b' as well: they meet in the concatenation.
    assert {name: [item.bits for item in found] for name, found in outputs.items()} == {
        name: [3, 4, 5, 6, 7, 8] for name in "ac"
    }


def test_what_meets_in_a_concatenation_has_one_width() -> None:
    graph = network()
    options = CompileOptions(max_bops="50%")
    widths = {("a", Part.OUTPUT): 4, ("b", Part.WEIGHTS): 2}
    plan = widths_plan(graph, options, widths)
    assert widths_of(plan, dict.fromkeys(widths)) == widths
    assert {plan.layers[name].output.bits for name in ("a", "b", "joined")} == {4}
    assert plan.layers["b"].weights is not None
    assert plan.layers["b"].weights.width_name == "ternary"
    assert plan.layers["c"].weights is not None
    assert plan.layers["c"].weights.bits == 8


def test_what_is_joined_with_a_given_width_is_left_alone() -> None:
    graph = network()
    options = CompileOptions(max_bops="50%", layers=(LayerOverride("b", abits="7"),))
    found = output_formats(graph, assign_formats(graph, options), options)
    assert list(found) == ["c"]


def test_sums_follow_the_widths_they_read() -> None:
    graph = network()
    options = CompileOptions(max_bops="50%")
    plan = assign_formats(graph, options)
    slots = {
        (name, part): 8
        for name, part in (
            *((name, Part.WEIGHTS) for name in "bc"),
            *((name, Part.OUTPUT) for name in "ac"),
        )
    }
    layers = layers_of(graph, plan, frozenset(slots))
    sizes = {"a": 36, "b": 144, "c": 288, "last": 8}
    assert LayerSum(layers, weight_bits).total(slots) == 8 * sum(sizes.values())
    assert LayerSum(layers, weight_bytes).total(slots) == sum(sizes.values())
    operations = LayerSum(layers, bit_operations)
    assert operations.total(slots) == 64 * 64 * sum(sizes.values())
    narrow = slots | {("a", Part.OUTPUT): 4}
    saved = 64 * (sizes["b"] + sizes["c"]) * 8 * 4
    assert operations.total(slots) - operations.total(narrow) == saved
    assert operations.change(slots, ("a", Part.OUTPUT), 4) == -saved
    held = 2 * 8 * (1 + 4 + 8)
    assert LayerSum(layers, ram_bits).total(slots) == 8 * (sum(sizes.values()) + held)


def test_a_uniform_plan_is_what_the_flags_give() -> None:
    graph = network()
    options = CompileOptions(max_bytes="50%", max_bops="50%")
    assert uniform_plan(graph, options, 2, 6) == assign_formats(
        graph, CompileOptions(wbits="ternary", abits=6)
    )


def test_costs_of_a_graph_are_those_of_its_target() -> None:
    graph = next(case.graph for case in cases_of("conv") if len(case.graph.ops) == 1)
    in_c = costs_of(graph, CompileOptions())
    program = CBackend().emit(graph)
    assert (in_c.bytes, in_c.arena) == (program.constant_bytes, program.arena_bytes)
    assert in_c.luts is None
    in_hardware = costs_of(graph, CompileOptions(target="hdl", device="ecp5-25k"))
    design = hdl_backend(CompileOptions(target="hdl", device="ecp5-25k")).plan(graph).design
    assert in_hardware.ram_bits == design.ram_bits
    assert in_hardware.luts
    assert in_hardware.fps
    assert in_hardware.bops == in_c.bops > 0
    assert in_hardware.arena is None
