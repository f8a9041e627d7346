"""Grids of the model become types; what stays is a visible change of grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qcompile.errors import GraphError
from qcompile.graph import Graph, Op, Stage, infer_missing_types
from qcompile.ops import (
    Activation,
    Add,
    Affine,
    Concat,
    Conv,
    FakeQuantize,
    MaxPool,
    Pad,
    Rescale,
    Sigmoid,
)
from qcompile.options import OutputKind
from qcompile.passes.absorb_quantizers import AbsorbQuantizers
from qcompile.passes.base import run_passes
from qcompile.passes.fold_affine import FoldAffine
from qcompile.passes.imported_codes import weight_type
from qcompile.passes.select_output import SelectOutput
from qcompile.types import (
    FLOAT32,
    TERNARY,
    Array,
    CodebookKind,
    IntType,
    Quantization,
    Rounding,
    TensorType,
)


def graph_of(*ops: Op, outputs: tuple[str, ...] = ("y",), **constants: Array) -> Graph:
    """Input x [1, 2, 4, 4]; constants of type float32."""
    types = {"x": TensorType((1, 2, 4, 4))}
    types |= {name: TensorType(data.shape) for name, data in constants.items()}
    infer_missing_types(ops, types)
    return Graph("test", Stage.FLOAT, ("x",), outputs, ops, types, constants)


def fake(x: str, y: str, scale: float = 0.5, low: int = 0, high: int = 255) -> FakeQuantize:
    return FakeQuantize(name=f"{y}/q", inputs=(x,), outputs=(y,), scale=scale, low=low, high=high)


def rescale(x: str, y: str) -> Rescale:
    relu = Activation(slope=(0.0,))
    return Rescale(name=f"{y}/r", inputs=(x,), outputs=(y,), activation=relu)


def pool(x: str, y: str) -> MaxPool:
    return MaxPool(
        name=f"{y}/p", inputs=(x,), outputs=(y,), kernel=(2, 2), strides=(2, 2), pads_begin=(0, 0),
        pads_end=(0, 0), dilations=(1, 1),
    )  # fmt: skip


def absorbed(graph: Graph) -> Graph:
    return run_passes(graph, (AbsorbQuantizers(),))


def grid(graph: Graph, value: str) -> tuple[float, int, int]:
    kind = graph.types[value]
    assert kind.quantization is not None
    assert kind.limits is not None
    return kind.quantization.scale[0], kind.limits.low[0], kind.limits.high[0]


def kinds(graph: Graph) -> list[str]:
    return [op.kind for op in graph.ops]


def test_into_the_producer_and_the_input() -> None:
    found = absorbed(graph_of(fake("x", "a"), rescale("a", "t"), fake("t", "y", 0.25, -7, 8)))
    assert kinds(found) == ["Rescale"]
    assert grid(found, "x") == (0.5, 0, 255)
    assert grid(found, "y") == (0.25, -7, 8)


def test_a_table_takes_a_grid_as_well() -> None:
    table = Sigmoid(name="s", inputs=("a",), outputs=("t",))
    found = absorbed(graph_of(fake("x", "a"), table, fake("t", "y", 1 / 256)))
    assert kinds(found) == ["Sigmoid"]


def test_another_reader_keeps_the_real_value() -> None:
    add = Add(name="add", inputs=("t", "q"), outputs=("y",))
    found = absorbed(graph_of(rescale("x", "t"), fake("t", "q"), add))
    assert kinds(found) == ["Rescale", "Rescale", "Add"]
    assert found.types["t"].quantization is None
    assert grid(found, "q") == (0.5, 0, 255)


def test_twins_are_one() -> None:
    add = Add(name="add", inputs=("p", "q"), outputs=("y",))
    found = absorbed(graph_of(rescale("x", "t"), fake("t", "p"), fake("t", "q"), add))
    assert kinds(found) == ["Rescale", "Add"]
    assert found.by_name["add"].inputs == ("p", "p")


def test_two_clamps_of_one_scale_are_one() -> None:
    found = absorbed(graph_of(rescale("x", "t"), fake("t", "q"), fake("q", "y", 0.5, 0, 63)))
    assert kinds(found) == ["Rescale"]
    assert grid(found, "y") == (0.5, 0, 63)


def test_the_same_grid_again_is_nothing() -> None:
    found = absorbed(
        graph_of(fake("x", "a"), pool("a", "t"), fake("t", "b"), rescale("b", "r"), fake("r", "y"))
    )
    assert kinds(found) == ["MaxPool", "Rescale"]
    assert grid(found, "t") == (0.5, 0, 255)


def test_another_grid_behind_movement_is_a_rescale() -> None:
    found = absorbed(graph_of(fake("x", "a"), pool("a", "t"), fake("t", "y", 0.75)))
    assert kinds(found) == ["MaxPool", "Rescale"]


def test_through_movement_to_what_is_real() -> None:
    """Rounding before a maximum is rounding behind it."""
    found = absorbed(graph_of(rescale("x", "t"), pool("t", "p"), fake("p", "y")))
    assert kinds(found) == ["Rescale", "MaxPool"]
    assert grid(found, found.ops[0].output) == grid(found, "y") == (0.5, 0, 255)


def test_concat_brings_every_input_to_its_grid() -> None:
    concat = Concat(name="cat", inputs=("a", "t"), outputs=("c",), axis=1)
    found = absorbed(graph_of(fake("x", "a", 0.25), rescale("a", "t"), concat, fake("c", "y", 0.5)))
    assert kinds(found) == ["Rescale", "Rescale", "Concat"]
    assert all(grid(found, value) == (0.5, 0, 255) for value in found.by_name["cat"].inputs)


def test_the_constant_of_a_pad_is_rounded() -> None:
    pad = Pad(
        name="pad", inputs=("t",), outputs=("p",), begins=(0, 0, 1, 1), ends=(0, 0, 0, 0), value=0.8
    )
    found = absorbed(graph_of(rescale("x", "t"), pad, fake("p", "y")))
    moved = found.by_name["pad"]
    assert isinstance(moved, Pad)
    assert moved.value == 1.0


def test_a_pad_widens_the_codes() -> None:
    pad = Pad(
        name="pad", inputs=("a",), outputs=("y",), begins=(0, 0, 1, 1), ends=(0, 0, 0, 0), value=-2
    )
    found = absorbed(graph_of(fake("x", "a"), pad))
    assert grid(found, "y") == (0.5, -4, 255)


def on_grid(data: Array, scales: tuple[float, ...]) -> TensorType:
    return TensorType(data.shape, FLOAT32, Quantization(scales, 0, Rounding.HALF_EVEN))


def convolution() -> tuple[Graph, Array]:
    codes = np.random.default_rng(0).integers(-7, 8, (3, 2, 1, 1))
    scales = np.array([0.1, 0.2, 0.3], np.float32)
    weights = (codes * scales[:, None, None, None]).astype(np.float32)
    bias = np.array([1000, -70000, 3], np.float32) * np.float32(0.01)
    conv = Conv(
        name="conv", inputs=("x", "w", "b"), outputs=("t",), strides=(1, 1), pads_begin=(0, 0),
        pads_end=(0, 0), dilations=(1, 1),
    )  # fmt: skip
    graph = graph_of(conv, fake("t", "y", 0.3, -9, 200), w=weights, b=bias)
    types = dict(graph.types)
    types["w"] = on_grid(weights, tuple(scales.astype(float).tolist()))
    types["b"] = on_grid(bias, (float(np.float32(0.01)),))
    return replace(graph, types=types), codes


def test_weights_and_biases_become_codes() -> None:
    graph, codes = convolution()
    found = absorbed(graph)
    weights, bias = found.by_name["conv"].inputs[1:]
    np.testing.assert_array_equal(found.constants[weights], codes)
    assert found.types[weights].element == IntType(4, narrow=True)
    assert found.constants[bias].tolist() == [1000, -70000, 3]


def test_a_norm_goes_into_the_scales() -> None:
    graph, codes = convolution()
    gain, shift = np.array([2.0, -0.5, 0.0], np.float32), np.zeros(3, np.float32)
    norm = Affine(name="bn", inputs=("t", "g", "s"), outputs=("n",))
    ops = (graph.ops[0], norm, fake("n", "y", 0.3, -9, 200))
    types = dict(graph.types) | {"g": TensorType((3,)), "s": TensorType((3,))}
    types["n"] = types["t"]
    constants = dict(graph.constants) | {"g": gain, "s": shift}
    folded = run_passes(replace(graph, ops=ops, types=types, constants=constants), (FoldAffine(),))
    found = absorbed(folded)
    weights = found.by_name["conv"].inputs[1]
    signs = np.array([1, -1, 0])[:, None, None, None]
    np.testing.assert_array_equal(found.constants[weights], codes * signs)
    quantization = found.types[weights].quantization
    assert quantization is not None
    assert quantization.scale == pytest.approx((0.2, 0.1, 0.3))


def test_weights_off_their_grid_are_a_mistake() -> None:
    graph, _ = convolution()
    wrong = dict(graph.constants)
    wrong["w"] = wrong["w"] * np.float32(1.1)
    with pytest.raises(GraphError, match="'w' is not on the grid"):
        absorbed(replace(graph, constants=wrong))


@pytest.mark.parametrize(
    ("codes", "element", "kind"),
    [
        ([-1, 0, 1], TERNARY, CodebookKind.TERNARY),
        ([-1, 1, 1], TERNARY, CodebookKind.BINARY),
        ([0, 0, 0], TERNARY, CodebookKind.TERNARY),
        ([-2, 1], IntType(2), CodebookKind.UNIFORM),
        ([-7, 7], IntType(4, narrow=True), CodebookKind.UNIFORM),
        ([-8, 7], IntType(4), CodebookKind.UNIFORM),
        ([0, 127], IntType(8, narrow=True), CodebookKind.UNIFORM),
        ([-128, 5], IntType(8), CodebookKind.UNIFORM),
        ([-131, 124], IntType(9, narrow=True), CodebookKind.UNIFORM),
    ],
)
def test_types_of_weights(codes: list[int], element: IntType, kind: CodebookKind) -> None:
    found, book = weight_type(np.array(codes))
    assert (found, book.kind) == (element, kind)


def test_models_without_grids_stay_as_they_are() -> None:
    graph = graph_of(rescale("x", "y"))
    assert absorbed(graph).ops == graph.ops


def test_outputs_are_selected_behind_rounding() -> None:
    """Logits: the table and the rounding of its result go, the rounding of the logits stays."""
    table = Sigmoid(name="s", inputs=("a",), outputs=("t",))
    graph = graph_of(rescale("x", "r"), fake("r", "a"), table, fake("t", "y", 1 / 256))
    logits = run_passes(graph, (SelectOutput(OutputKind.LOGITS),))
    assert kinds(logits) == ["Rescale", "FakeQuantize"]
    plain = graph_of(rescale("x", "r"), fake("r", "y"))
    assert kinds(run_passes(plain, (SelectOutput(OutputKind.LOGITS),))) == kinds(plain)
