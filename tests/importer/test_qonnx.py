"""QONNX models against the published formulas of Quant, BipolarQuant and Trunc, in float64.

The same networks were run by hand through the reference executor of the `qonnx` package; see
docs/quantized-models.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from qcompile.errors import ModelError, UnsupportedError
from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.types import TERNARY, Array, CodebookKind, IntType
from tests.importer.quantised import compiled, images, model_of, our_codes, save

node = helper.make_node
DOMAIN = "qonnx.custom_op.general"

ROUND: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.round,
    "FLOOR": np.floor,
    "CEIL": np.ceil,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.fix,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
}
NOISE = 1e-5
"""Nearer to a tie than this, float32 decides one way or the other (steps)."""


def span(bits: int, signed: int, narrow: int) -> tuple[int, int]:
    if signed:
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


def quant(
    name: str, x: str, y: str, constants: dict[str, Any], scale: Any, bits: int, **attributes: Any
) -> onnx.NodeProto:
    zero = attributes.pop("zero", 0.0)
    constants |= {
        f"{y}.s": np.asarray(scale, np.float32),
        f"{y}.z": np.float32(zero),
        f"{y}.b": np.float32(bits),
    }
    inputs = [x, f"{y}.s", f"{y}.z", f"{y}.b"]
    return node(name, inputs, [y], domain=DOMAIN, name=f"{y}.quant", **attributes)


def network(
    scale: float, bits: int, name: str = "Quant", weight_bits: int = 4, power: bool = False,
    relu: bool = False, **attributes: Any
) -> tuple[onnx.ModelProto, dict[str, Any]]:  # fmt: skip
    """Quant -> Conv with a norm of gains of both signs -> Quant."""
    rng = np.random.default_rng(int(bits))
    constants: dict[str, Any] = {}
    weights = (rng.standard_normal((6, 3, 3, 3)) / 4).astype(np.float32)
    constants["w"] = weights
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    grid = largest / (2 ** (weight_bits - 1) - 1)
    if power:
        grid = 2.0 ** np.round(np.log2(grid))
    nodes = [
        quant("Quant", "x", "a", constants, 2.0**-8 if power else 1 / 255, 8, signed=0, narrow=0),
        quant("Quant", "w", "wq", constants, grid, weight_bits, signed=1, narrow=1),
        node("Conv", ["a", "wq"], ["c"], name="conv", pads=[1, 1, 1, 1]),
    ]
    last = "c"
    if not power:
        constants |= {
            "g": np.array([1.1, -0.7, 0.9, 1.3, -1.2, 0.5], np.float32),
            "o": rng.standard_normal(6).astype(np.float32) / 4,
            "m": rng.standard_normal(6).astype(np.float32) / 4,
            "v": rng.uniform(0.5, 1.5, 6).astype(np.float32),
        }
        nodes.append(node("BatchNormalization", ["c", "g", "o", "m", "v"], ["n"], name="norm"))
        last = "n"
    if relu:
        nodes.append(node("Relu", [last], ["r"]))
        last = "r"
    nodes.append(quant(name, last, "y", constants, scale, bits, **attributes))
    model = model_of(nodes, constants, (1, 3, 12, 12), domains={DOMAIN: 1})
    return model, constants


def steps_before_rounding(graph: Graph, constants: dict[str, Any], feed: dict[str, Array]) -> Array:
    """x / scale of the last Quant in float64, from our own input codes."""
    conv = graph.by_name["conv"]
    weights = np.rint(constants["w"].astype(np.float32) / constants["wq.s"])
    bits = int(constants["wq.b"])
    limit = 2 ** (bits - 1) - 1
    real = np.clip(weights, -limit, limit) * constants["wq.s"].astype(np.float64)
    codes = our_codes(graph, feed)[conv.inputs[0].removesuffix(".codes")]
    x = np.pad(codes * float(constants["a.s"]), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), axis=(1, 2))
    sums = np.einsum("chwij,mcij->mhw", windows, real)[None]
    if "g" in constants:
        g, o, m, v = (constants[key].astype(np.float64)[:, None, None] for key in "gomv")
        sums = (sums - m) * (g / np.sqrt(v + 1e-5)) + o
    return np.asarray(sums / float(constants["y.s"]))


MODES = [
    ("ROUND", 4, 1, 1), ("ROUND", 4, 0, 0), ("ROUND", 4, 0, 1), ("ROUND", 3, 1, 0),
    ("ROUND", 2, 1, 1), ("ROUND", 8, 1, 0), ("FLOOR", 4, 1, 0), ("FLOOR", 4, 0, 0),
    ("CEIL", 4, 1, 0), ("UP", 4, 1, 1), ("UP", 4, 0, 0), ("DOWN", 4, 1, 1), ("DOWN", 4, 0, 0),
    ("HALF_UP", 4, 1, 1), ("HALF_DOWN", 4, 1, 1), ("HALF_DOWN", 4, 0, 0),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "bits", "signed", "narrow"), MODES)
@pytest.mark.parametrize("power", [False, True], ids=["norm", "powers"])
def test_rounding(
    tmp_path: Path, mode: str, bits: int, signed: int, narrow: int, power: bool
) -> None:
    scale = 2.0**-2 if power else 0.23
    model, constants = network(
        scale, bits, power=power, relu=not signed, signed=signed, narrow=narrow, rounding_mode=mode
    )
    graph = compiled(save(model, tmp_path)).integer_graph
    for feed in images(3):
        steps = steps_before_rounding(graph, constants, feed)
        if not signed:
            steps = np.maximum(steps, 0)
        wanted = np.clip(ROUND[mode](steps), *span(bits, signed, narrow))
        ours = our_codes(graph, feed)["y"]
        different = ours != wanted
        if mode == "ROUND":
            # half even in QONNX; half up here with many levels: exactly at a tie, and only there
            fraction = np.abs(steps - np.floor(steps) - 0.5)
            assert (fraction[different] < NOISE).all()
            assert (power and bits > 4) or not different.any()
        else:
            # behind scales that are powers of two, sums are at ties, too, and none differs
            assert not different.any()


def test_zero_point_of_activations(tmp_path: Path) -> None:
    model, constants = network(0.23, 4, signed=0, narrow=0, zero=6.0)
    graph = compiled(save(model, tmp_path)).integer_graph
    limits = graph.types["y.codes"].limits
    assert limits is not None
    assert (limits.low, limits.high) == ((-6,), (9,))
    for feed in images(3):
        steps = steps_before_rounding(graph, constants, feed)
        wanted = np.clip(np.round(steps + 6), 0, 15) - 6
        np.testing.assert_array_equal(our_codes(graph, feed)["y"], wanted)


@pytest.mark.parametrize("name", ["Quant", "IntQuant", "BipolarQuant"])
def test_one_bit(tmp_path: Path, name: str) -> None:
    """BipolarQuant, and Quant of one signed bit: zero counts as positive."""
    model, constants = network(0.4, 1, name="Quant", signed=1, narrow=0)
    last = model.graph.node[-1]
    last.op_type = name
    if name == "BipolarQuant":
        del last.input[2:]
        del last.attribute[:]
    graph = compiled(save(model, tmp_path)).integer_graph
    book = graph.types["y.codes"].codebook
    assert book is not None
    assert book.kind is CodebookKind.BINARY
    for feed in images(3):
        steps = steps_before_rounding(graph, constants, feed)
        np.testing.assert_array_equal(our_codes(graph, feed)["y"], np.where(steps >= 0, 1, -1))


def test_weights_keep_their_codes(tmp_path: Path) -> None:
    """Through the batch norm, whose gain goes into the scales (and signs) of the channels."""
    model, constants = network(0.23, 4, signed=1, narrow=1)
    graph = compiled(save(model, tmp_path)).integer_graph
    weights = graph.by_name["conv"].inputs[1]
    codes = np.clip(np.rint(constants["w"] / constants["wq.s"]), -7, 7)
    signs = np.sign(constants["g"])[:, None, None, None]
    np.testing.assert_array_equal(graph.constants[weights], codes * signs)
    assert graph.types[weights].element == IntType(4, narrow=True)


@pytest.mark.parametrize(("bits", "kind"), [(2, CodebookKind.TERNARY), (1, CodebookKind.BINARY)])
def test_weights_of_few_levels(tmp_path: Path, bits: int, kind: CodebookKind) -> None:
    model, _ = network(0.23, 4, weight_bits=2, signed=1, narrow=1)
    if bits == 1:
        weights = model.graph.node[1]
        weights.op_type = "BipolarQuant"
        del weights.input[2:]
        del weights.attribute[:]
    graph = compiled(save(model, tmp_path)).integer_graph
    found = graph.types[graph.by_name["conv"].inputs[1]]
    assert found.element == TERNARY
    assert found.codebook is not None
    assert found.codebook.kind is kind


@pytest.mark.parametrize("inputs", [5, 6])
def test_trunc_behind_an_average_pool(tmp_path: Path, inputs: int) -> None:
    """Brevitas' QuantAvgPool: the sum of four 4-bit codes loses its two lowest bits."""
    constants: dict[str, Any] = {
        "k": np.float32(4), "ts": np.float32(0.1), "tz": np.float32(0), "tb": np.float32(6),
        "os": np.float32(0.1) * np.float32(4), "ob": np.float32(4),
    }  # fmt: skip
    names = ["t0", "ts", "tz", "tb", "os", "ob"]
    if inputs == 5:
        names.remove("os")
    attributes = {"signed": 0, "narrow": 0} if inputs == 6 else {}
    nodes = [
        quant("Quant", "x", "a", constants, 0.1, 4, signed=0, narrow=0),
        node("AveragePool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Mul", ["p", "k"], ["t0"]),
        node("Trunc", names, ["y"], domain=DOMAIN, rounding_mode="FLOOR", **attributes),
    ]
    model = model_of(nodes, constants, (1, 3, 12, 12), domains={DOMAIN: 1 if inputs == 5 else 2})
    graph = compiled(save(model, tmp_path)).integer_graph
    for feed in images(3):
        values = our_codes(graph, {"x": feed["x"] * 1.5})
        sums = values["x"].reshape(1, 3, 6, 2, 6, 2).sum(axis=(3, 5))
        np.testing.assert_array_equal(values["y"], sums // 4)
    scale = graph.types["y.codes"].quantization
    assert scale is not None
    assert scale.scale[0] == pytest.approx(0.1 if inputs == 5 else 0.4)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a scale for each channel": ({"scale": np.full((1, 6, 1, 1), 0.1) + np.arange(6)[None, :, None,
                                  None]}, "6 scales for a tensor that is computed"),
    "a zero point between codes": ({"zero": 0.5}, "zero point that is no integer"),
    "a rounding mode of nobody": ({"rounding_mode": "STOCHASTIC"}, "rounding mode 'STOCHASTIC'"),
    "half a bit": ({"bits": 3.5}, "3.5 bits"),
    "no zero point": ({"zero": np.inf}, "zero point that is no integer"),
    "many bits": ({"bits": 40}, "40 bits"),
    "zero point and sign": ({"zero": 3.0, "rounding_mode": "UP"}, "UP with a zero point"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_honoured_is_refused(tmp_path: Path, case: str) -> None:
    changes, message = WRONG[case]
    given = {"scale": 0.23, "bits": 4, "signed": 1, "narrow": 0} | changes
    model, _ = network(**given)
    with pytest.raises(UnsupportedError, match=message) as caught:
        import_model(save(model, tmp_path))
    assert caught.value.items[0].node == "y.quant"


def test_float_quant_is_refused(tmp_path: Path) -> None:
    model, _ = network(0.23, 4, signed=1, narrow=0)
    model.graph.node[-1].op_type = "FloatQuant"
    with pytest.raises(UnsupportedError, match="FloatQuant"):
        import_model(save(model, tmp_path))


def test_scales_that_do_not_fit_the_weights(tmp_path: Path) -> None:
    model, _ = network(0.23, 4, signed=1, narrow=0)
    (scale,) = (item for item in model.graph.initializer if item.name == "wq.s")
    scale.CopyFrom(onnx.numpy_helper.from_array(np.full(5, 0.1, np.float32), "wq.s"))
    with pytest.raises(ModelError, match=r"scale of shape \[5\]"):
        import_model(save(model, tmp_path))
