"""What attention networks are made of: products, Einsum, masks, norms and their spellings."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import helper

from qcompile.errors import UnsupportedError
from qcompile.options import CompileOptions
from qcompile.passes.base import run_passes
from qcompile.pipeline import simplify_passes
from qcompile.sim.executor import Executor
from qcompile.types import Array
from tests.importer.models import assert_like_onnxruntime, build, images, imported, kinds

RNG = np.random.default_rng(3)


def numbers(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def built(
    nodes: list[onnx.NodeProto],
    shapes: Mapping[str, tuple[int, ...]],
    constants: Mapping[str, Array] | None = None,
) -> onnx.ModelProto:
    """A model of computed values of any shape: inputs have an axis of 1 more, which goes first."""
    inputs = {f"{name}_in": (1, *shape) for name, shape in shapes.items()}
    first = [helper.make_node("Squeeze", [f"{name}_in", "axis"], [name]) for name in shapes]
    known = {"axis": np.array([0]), **(constants or {})}
    return build([*first, *nodes], inputs=inputs, constants=known)


def simplified(model: onnx.ModelProto) -> list[str]:
    """The operators after the passes, which change no result."""
    before = assert_like_onnxruntime(model)
    after = run_passes(before, simplify_passes(CompileOptions()), None)
    feeds = images(before)
    expected, result = Executor(before).run(feeds), Executor(after).run(feeds)
    for name in before.outputs:
        scale = max(1.0, float(np.abs(expected[name]).max()))
        np.testing.assert_allclose(result[name], expected[name], atol=1e-5 * scale)
    return kinds(after)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((1, 3, 4, 5), (1, 3, 5, 2)),
        ((1, 3, 4, 5), (5, 2)),
        ((2, 1, 4, 5), (3, 5, 4)),
        ((4, 5), (5,)),
        ((5,), (2, 5, 3)),
    ],
)
def test_product_of_two_computed_tensors(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    graph = assert_like_onnxruntime(built([node], {"a": a, "b": b}))
    assert "BatchMatMul" in kinds(graph)


@pytest.mark.parametrize("left", [False, True])
def test_product_with_a_batch_of_constant_matrices(left: bool) -> None:
    node = helper.make_node("MatMul", ["w", "x"] if left else ["x", "w"], ["y"])
    graph = assert_like_onnxruntime(build([node], constants={"w": numbers(1, 2, 4, 4)}))
    assert kinds(graph) == ["BatchMatMul"]


@pytest.mark.parametrize("addend", ["none", "constant", "computed"])
def test_gemm_of_computed_matrices(addend: str) -> None:
    inputs: dict[str, tuple[int, ...]] = {"a": (5, 4), "b": (3, 5)}
    names = ["a", "b"]
    constants = {}
    if addend == "constant":
        constants["c"] = numbers(3)
        names.append("c")
    elif addend == "computed":
        inputs["c"] = (4, 3)
        names.append("c")
    node = helper.make_node("Gemm", names, ["y"], alpha=0.5, beta=2.0, transA=1, transB=1)
    assert_like_onnxruntime(built([node], inputs, constants))


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bqhd,bkhd->bhqk", [(1, 3, 2, 4), (1, 5, 2, 4)]),
        ("bhqk,bkhd->bqhd", [(1, 2, 3, 5), (1, 5, 2, 4)]),
        ("bci,bcj->bij", [(2, 3, 4), (2, 3, 5)]),
        ("...ij,...jk->...ik", [(1, 2, 3, 4), (1, 2, 4, 5)]),
        ("bchw,bchw->bhw", [(1, 3, 4, 5), (1, 3, 4, 5)]),
        ("bchw,bc->bchw", [(1, 3, 4, 5), (1, 3)]),
        ("i,j->ij", [(3,), (4,)]),
        ("bij,bk->bi", [(1, 3, 4), (1, 5)]),
        ("ij->ji", [(3, 4)]),
        ("bij->b", [(1, 3, 4)]),
        ("bij,jk", [(1, 3, 4), (4, 5)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    names = [f"x{index}" for index in range(len(shapes))]
    node = helper.make_node("Einsum", names, ["y"], equation=equation)
    assert_like_onnxruntime(built([node], dict(zip(names, shapes, strict=True))))


@pytest.mark.parametrize("which", [0, 1])
def test_einsum_with_a_constant(which: int) -> None:
    names = ["x", "w"] if which else ["w", "x"]
    terms = ("bchw", "kc") if which else ("kc", "bchw")
    node = helper.make_node("Einsum", names, ["y"], equation=f"{terms[0]},{terms[1]}->bkhw")
    graph = assert_like_onnxruntime(build([node], constants={"w": numbers(3, 2)}))
    assert ("MatMul" in kinds(graph)) == bool(which)


@pytest.mark.parametrize(
    ("equation", "count", "reason"),
    [("bii->bi", 1, "diagonal"), ("bij,bij,bij->b", 3, "3 operands")],
)
def test_einsum_that_is_refused(equation: str, count: int, reason: str) -> None:
    node = helper.make_node("Einsum", ["x"] * count, ["y"], equation=equation, name="sum")
    with pytest.raises(UnsupportedError, match=f"Einsum 'sum'.*{reason}"):
        imported(build([node], inputs={"x": (1, 4, 4)}))


def attention(mask: list[onnx.NodeProto], constants: dict[str, Array]) -> onnx.ModelProto:
    """softmax(q @ k' + mask) @ v with nodes that turn `scores` into `masked`."""
    nodes = [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        *mask,
        helper.make_node("Softmax", ["masked"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "v"], ["y"]),
    ]
    inputs = dict.fromkeys(("q", "k", "v"), (1, 2, 5, 3))
    return build(nodes, inputs=inputs, constants=constants)


CAUSAL = np.tril(np.ones((5, 5), bool))


@pytest.mark.parametrize("low", [-math.inf, float(np.finfo(np.float32).min), -1e4, -100.0])
def test_added_mask(low: float) -> None:
    constants = {"mask": np.where(CAUSAL, 0, low).astype(np.float32)}
    model = attention([helper.make_node("Add", ["scores", "mask"], ["masked"])], constants)
    assert simplified(model) == ["Transpose", "BatchMatMul", "Softmax", "BatchMatMul"]


def test_mask_beside_a_bias_and_behind_a_reshape() -> None:
    mask = np.where(CAUSAL, numbers(2, 5, 5), -100.0).astype(np.float32)
    constants = {"mask": mask, "shape": np.array([2, 5, 5]), "back": np.array([1, 2, 5, 5])}
    nodes = [
        helper.make_node("Add", ["scores", "mask"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("Reshape", ["b", "back"], ["masked"]),
    ]
    found = simplified(attention(nodes, constants))
    assert found.count("Add") == 1
    assert "MaskedFill" not in found


def test_where_with_a_constant_condition() -> None:
    constants = {"keeps": CAUSAL, "low": np.array(-1e9, np.float32)}
    nodes = [helper.make_node("Where", ["keeps", "scores", "low"], ["masked"])]
    assert simplified(attention(nodes, constants)).count("Softmax") == 1


def test_weights_that_are_no_number_do_not_occur() -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["s"], axis=-1),
        helper.make_node("IsNaN", ["s"], ["n"]),
        helper.make_node("Where", ["n", "zero", "s"], ["y"]),
    ]
    graph = assert_like_onnxruntime(build(nodes, constants={"zero": np.array(0, np.float32)}))
    assert kinds(graph) == ["Softmax"]


def test_masked_values_without_a_softmax() -> None:
    constants = {"keeps": RNG.random((4, 4)) < 0.5, "low": np.array(-2.5, np.float32)}
    node = helper.make_node("Where", ["keeps", "x", "low"], ["y"])
    assert simplified(build([node], constants=constants)) == ["MaskedFill"]
    constants = {"mask": np.where(np.eye(4), -math.inf, 0).astype(np.float32)}
    node = helper.make_node("Add", ["x", "mask"], ["y"], name="add")
    graph = imported(build([node], constants=constants))
    with pytest.raises(UnsupportedError, match=r"MaskedFill 'add'.*infinite"):
        run_passes(graph, simplify_passes(CompileOptions()), None)


@pytest.mark.parametrize("axis", [-1, 2, 1])
def test_layer_normalization(axis: int) -> None:
    shape = (1, 2, 4, 4)[axis:]
    constants = {"scale": numbers(*shape), "shift": numbers(*shape)}
    node = helper.make_node("LayerNormalization", ["x", "scale", "shift"], ["y"], axis=axis)
    graph = assert_like_onnxruntime(build([node], constants=constants))
    assert "LayerNorm" in kinds(graph)


@pytest.mark.parametrize("axes", [(-1,), (1,), (2, 3), (1, 3)])
@pytest.mark.parametrize("form", ["div", "reciprocal"])
def test_layer_norm_of_means_and_a_root(axes: tuple[int, ...], form: str) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=axes),
        helper.make_node("Sub", ["x", "mean"], ["d"]),
        helper.make_node("Pow", ["d", "two"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["variance"], axes=axes),
        helper.make_node("Add", ["variance", "epsilon"], ["sum"]),
        helper.make_node("Sqrt", ["sum"], ["root"]),
    ]
    if form == "div":
        nodes.append(helper.make_node("Div", ["d", "root"], ["n"]))
    else:
        nodes.append(helper.make_node("Reciprocal", ["root"], ["r"]))
        nodes.append(helper.make_node("Mul", ["d", "r"], ["n"]))
    nodes.append(helper.make_node("Mul", ["n", "gain"], ["g"]))
    nodes.append(helper.make_node("Add", ["g", "shift"], ["y"]))
    size = (2, 1, 1) if axes == (1,) else (4,)
    constants = {
        "two": np.array(2, np.float32),
        "epsilon": np.array(1e-5, np.float32),
        "gain": numbers(*size),
        "shift": numbers(*size),
    }
    found = simplified(build(nodes, constants=constants, opset=13))
    assert found.count("LayerNorm") == 1
    assert not {"Sqrt", "Div", "ReduceMean"} & set(found)
    if axes in ((-1,), (1,)):
        assert found == ["LayerNorm"]


def gelu_nodes(tanh: bool, order: int) -> list[onnx.NodeProto]:
    if tanh:
        nodes = [
            helper.make_node("Pow", ["x", "three"], ["cube"]),
            helper.make_node("Mul", ["cube", "cubic"], ["c"]),
            helper.make_node("Add", ["x", "c"], ["inner"]),
            helper.make_node("Mul", ["inner", "root"], ["scaled"]),
            helper.make_node("Tanh", ["scaled"], ["gate"]),
        ]
    else:
        nodes = [
            helper.make_node("Div", ["x", "sqrt2"], ["scaled"]),
            helper.make_node("Erf", ["scaled"], ["gate"]),
        ]
    nodes.append(helper.make_node("Add", ["gate", "one"], ["open"]))
    if order == 0:
        nodes.append(helper.make_node("Mul", ["x", "open"], ["p"]))
        nodes.append(helper.make_node("Mul", ["p", "half"], ["y"]))
    elif order == 1:
        nodes.append(helper.make_node("Mul", ["x", "half"], ["h"]))
        nodes.append(helper.make_node("Mul", ["open", "h"], ["y"]))
    else:
        nodes.append(helper.make_node("Mul", ["open", "half"], ["h"]))
        nodes.append(helper.make_node("Mul", ["h", "x"], ["y"]))
    return nodes


GELU = {
    "three": np.array(3, np.float32),
    "cubic": np.array(0.044715, np.float32),
    "root": np.array(math.sqrt(2 / math.pi), np.float32),
    "sqrt2": np.array(math.sqrt(2), np.float32),
    "one": np.array(1, np.float32),
    "half": np.array(0.5, np.float32),
}


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_gelu_in_every_spelling(tanh: bool, order: int) -> None:
    assert simplified(build(gelu_nodes(tanh, order), constants=GELU)) == ["Gelu"]


def test_what_is_no_gelu() -> None:
    constants = GELU | {"sqrt2": np.array(1.5, np.float32)}
    assert "Gelu" not in simplified(build(gelu_nodes(False, 0), constants=constants))


def test_gelu_operator() -> None:
    for approximate in ("none", "tanh"):
        node = helper.make_node("Gelu", ["x"], ["y"], approximate=approximate)
        assert kinds(assert_like_onnxruntime(build([node], opset=20))) == ["Gelu"]


def test_linear_layer_over_tokens() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["b", "p"], ["y"]),
    ]
    constants = {"w": numbers(4, 3), "b": numbers(3)}
    model = build(nodes, inputs={"x": (1, 6, 4)}, constants=constants)
    assert simplified(model) == ["MatMul"]


def test_factors_of_queries_and_keys() -> None:
    nodes = [
        helper.make_node("Mul", ["q", "s"], ["sq"]),
        helper.make_node("Mul", ["k", "s"], ["sk"]),
        helper.make_node("Transpose", ["sk"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["sq", "kt"], ["y"]),
    ]
    inputs = dict.fromkeys(("q", "k"), (1, 5, 3))
    model = build(nodes, inputs=inputs, constants={"s": np.array(0.7, np.float32)})
    assert simplified(model) == ["Transpose", "BatchMatMul"]


def test_class_token() -> None:
    node = helper.make_node("Concat", ["token", "x"], ["y"], axis=1)
    model = build([node], inputs={"x": (1, 6, 4)}, constants={"token": numbers(1, 1, 4)})
    assert kinds(assert_like_onnxruntime(model)) == ["Concat"]


def test_gather_by_many_indices() -> None:
    indices = RNG.integers(0, 4, (10, 20))
    node = helper.make_node("Gather", ["x", "indices"], ["y"], axis=2)
    graph = assert_like_onnxruntime(build([node], constants={"indices": indices}))
    assert kinds(graph) == ["Gather", "Reshape"]


@pytest.mark.parametrize("exponent", [-0.5, 0.5, 1.0, 2.0, 3.0])
def test_powers(exponent: float) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["s"]),
        helper.make_node("Add", ["s", "one"], ["positive"]),
        helper.make_node("Pow", ["positive", "e"], ["y"]),
    ]
    constants = {"e": np.array(exponent, np.float32), "one": np.array(1, np.float32)}
    assert_like_onnxruntime(build(nodes, constants=constants))
