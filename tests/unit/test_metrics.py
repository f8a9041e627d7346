from __future__ import annotations

import json
import math

import numpy as np
import pytest

from qcompile.backends.artifacts import Artifacts
from qcompile.boundary import InputKind, InputSpec
from qcompile.data import EvaluationData
from qcompile.errors import DataError
from qcompile.evaluate import Evaluation, evaluate
from qcompile.graph import Graph, Op, Stage
from qcompile.multiplications import multiplications
from qcompile.ops import ArgMax, Conv, ConvTranspose, LocalAttention2d, MaxPool, Sigmoid
from qcompile.options import CompileOptions
from qcompile.report.document import NOT_ASSURED, Report, build_report
from qcompile.report.layers import layer_rows, measure_fidelity
from qcompile.report.markdown import to_markdown
from qcompile.report.metrics import (
    Decision,
    Overlap,
    Rule,
    decision_for,
    is_probability,
    logit,
    overlap,
    overlaps,
    scores_from,
)
from qcompile.types import (
    FLOAT32,
    Array,
    Element,
    IntType,
    Quantization,
    Shape,
    TensorType,
)


def test_dice_counts() -> None:
    prediction = np.array([[1, 1, 0], [2, 0, 0]])
    label = np.array([[1, 0, 0], [2, 2, 0]])
    assert overlap(prediction, label, 1) == Overlap(1, 3, 1)
    assert overlap(prediction, label, 2).dice() == pytest.approx(2 / 3)
    assert overlap(prediction, label, 2).iou() == pytest.approx(1 / 2)
    assert overlap(prediction, label, 3).dice() == 1.0
    assert Overlap(0, 4, 2).dice() == 0.0


def test_mean_and_pooled_differ() -> None:
    one = np.array([1, 1, 1, 1, 1, 1, 1, 1])
    few = np.array([1, 0, 0, 0, 0, 0, 0, 0])
    counts = [overlaps(one, one, [1]), overlaps(few, np.roll(few, 1), [1])]
    (result,) = scores_from(counts, [1])
    assert result.per_image == (1.0, 0.0)
    assert result.mean == 0.5
    assert result.pooled == pytest.approx(16 / 18)


def graph(
    ops: tuple[Op, ...], shapes: dict[str, Shape], elements: dict[str, Element] | None = None
) -> Graph:
    types = {
        name: TensorType(shape, (elements or {}).get(name, FLOAT32))
        for name, shape in shapes.items()
    }
    return Graph("g", Stage.FLOAT, ("x",), (list(shapes)[-1],), ops, types, {})


def test_one_channel_is_a_threshold_on_the_probability() -> None:
    logits = graph((), {"x": (1, 1, 4, 4)})
    name, decision = decision_for(logits, (4, 4), 0.75)
    assert name == "x"
    assert decision == Decision(Rule.THRESHOLD, 1, math.log(3), 2)
    output = np.array([-1.0, 0.0, 1.0, 2.0], np.float32).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(decision.apply(output), [[0, 0], [0, 1]])


def test_probabilities_are_recognised_behind_moves() -> None:
    ops = (
        Sigmoid(name="s", inputs=("x",), outputs=("p",)),
        MaxPool(
            name="m",
            inputs=("p",),
            outputs=("y",),
            kernel=(1, 1),
            strides=(1, 1),
            pads_begin=(0, 0),
            pads_end=(0, 0),
            dilations=(1, 1),
            ceil_mode=False,
        ),
    )
    shape = (1, 1, 4, 4)
    network = graph(ops, {"x": shape, "p": shape, "y": shape})
    assert is_probability(network, "y")
    assert not is_probability(network, "x")
    assert decision_for(network, (4, 4), 0.25)[1].limit == 0.25


def test_logit_of_the_ends() -> None:
    assert logit(0.5) == 0
    assert logit(1) == math.inf
    assert logit(0) == -math.inf


@pytest.mark.parametrize(("shape", "axis"), [((1, 3, 4, 5), 1), ((1, 4, 5, 3), 3)])
def test_several_channels_are_an_argmax(shape: Shape, axis: int) -> None:
    _, decision = decision_for(graph((), {"x": shape}), (4, 5), 0.5)
    assert decision == Decision(Rule.ARGMAX, axis, 0.0, 3)
    output = np.zeros(shape, np.float32)
    np.moveaxis(output, axis, 1)[0, 2, 1, 1] = 1
    found = decision.apply(output)
    assert found.shape == (4, 5)
    assert found[1, 1] == 2
    assert found.sum() == 2


@pytest.mark.parametrize("keep", [True, False])
def test_class_maps_are_taken_as_they_are(keep: bool) -> None:
    shape: Shape = (1, 1, 4, 5) if keep else (1, 4, 5)
    ops = (ArgMax(name="a", inputs=("x",), outputs=("y",), axis=1, keepdims=keep),)
    network = graph(ops, {"x": (1, 3, 4, 5), "y": shape}, {"y": IntType(2, signed=False)})
    _, decision = decision_for(network, (4, 5), 0.5)
    assert (decision.rule, decision.classes) == (Rule.CLASS_MAP, 3)
    assert decision.apply(np.full(shape, 2, np.uint8)).tolist() == [[2] * 5] * 4


def test_no_output_of_the_size_of_the_labels() -> None:
    with pytest.raises(DataError, match="which no output has"):
        decision_for(graph((), {"x": (1, 3, 2, 2)}), (4, 4), 0.5)


SPECS = {"x": InputSpec(InputKind.FLOAT32)}


def identity() -> Graph:
    return graph((), {"x": (1, 1, 4, 4)})


def sample(labels: Array, size: int = 8) -> EvaluationData:
    image = np.where(labels > 0, 1, -1).astype(np.float32).reshape(1, size, size)
    return EvaluationData(({"x": image},), (labels,))


def test_tiles_are_judged_together() -> None:
    labels = np.zeros((8, 8), np.int64)
    labels[1:3, 2:7] = 1
    steps: list[tuple[int, int]] = []
    result = evaluate(
        identity(), identity(), sample(labels), SPECS, progress=lambda *at: steps.append(at)
    )
    assert (result.dice_float, result.dice_quantized, result.drop) == (1.0, 1.0, 0.0)
    assert steps == [(step, 8) for step in range(1, 9)]


def test_masks_of_255_count_as_1() -> None:
    labels = np.zeros((8, 8), np.int64)
    labels[:3] = 255
    result = evaluate(identity(), identity(), sample(labels), SPECS)
    assert result.dice_float == 1.0


def test_labels_that_do_not_fit() -> None:
    labels = np.zeros((8, 8), np.int64)
    data = sample(labels)
    with pytest.raises(DataError, match="label 0 has shape"):
        evaluate(identity(), identity(), EvaluationData(data.images, (labels[:4],)), SPECS)
    labels[0, 0] = 5
    with pytest.raises(DataError, match="class 5"):
        evaluate(identity(), identity(), sample(labels), SPECS)


def conv(name: str, x: str, y: str) -> Conv:
    return Conv(
        name=name,
        inputs=(x, f"{name}.w", f"{name}.b"),
        outputs=(y,),
        strides=(2, 2),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
        groups=2,
    )


def network() -> Graph:
    up = ConvTranspose(
        name="up",
        inputs=("y", "up.w"),
        outputs=("z",),
        strides=(2, 2),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
        output_padding=(0, 0),
    )
    constants = {
        "c.w": np.ones((6, 2, 2, 2), np.float32),
        "c.b": np.zeros(6, np.float32),
        "up.w": np.ones((6, 5, 2, 2), np.float32),
    }
    types = {name: TensorType(data.shape) for name, data in constants.items()}
    types |= {
        "x": TensorType((1, 4, 8, 8)),
        "y": TensorType((1, 6, 4, 4)),
        "z": TensorType((1, 5, 8, 8)),
    }
    ops = (conv("c", "x", "y"), up)
    return Graph("g", Stage.FLOAT, ("x",), ("z",), ops, types, constants)


def test_multiplications() -> None:
    made = network()
    assert multiplications(made, made.ops[0]) == 6 * 2 * 4 * 16
    assert multiplications(made, made.ops[1]) == 6 * 5 * 4 * 16


def test_multiplications_of_attention_are_scores_and_sums() -> None:
    op = LocalAttention2d(
        name="a",
        inputs=("q", "k", "v", "r"),
        outputs=("y",),
        kernel=(3, 5),
        pads_begin=(1, 2),
        pads_end=(1, 2),
    )
    shapes = {"q": (1, 4, 6, 7), "k": (1, 4, 6, 7), "v": (1, 2, 6, 7), "y": (1, 2, 6, 7)}
    types = {name: TensorType(shape) for name, shape in (*shapes.items(), ("r", (4, 3, 5)))}
    constants = {"r": np.zeros((4, 3, 5), np.float32)}
    made = Graph("g", Stage.FLOAT, ("q", "k", "v"), ("y",), (op,), types, constants)
    assert multiplications(made, op) == 15 * 6 * 7 * (4 + 2)


def report(evaluation: Evaluation | None = None) -> Report:
    made = network()
    feeds = [{"x": np.full((1, 4, 8, 8), 0.5, np.float32)}]
    fidelity = measure_fidelity(made, made, feeds, SPECS)
    return build_report(
        version="0",
        model="a|b<script>.onnx",
        sha256="0" * 64,
        options=CompileOptions(),
        float_graph=made,
        integer_graph=made,
        layers=layer_rows(made, made, fidelity, {"c": 7, "up": 9}),
        calibration="generated",
        calibration_images=4,
        weight_bytes_emitted=100,
        arena_bytes=2000,
        evaluation=evaluation,
    )


def test_rows_and_totals() -> None:
    made = report()
    first, second = made.layers
    assert (first.parameters, second.parameters) == (48 + 6, 120)
    assert (first.weight_bits, first.activation_bits, first.const_bytes) == (32, 32, 7)
    assert first.bops == first.macs * 32 * 32
    assert first.fidelity is not None
    assert first.fidelity.cosine == 1.0
    assert first.fidelity.sqnr_db is None
    assert made.totals.parameters == 174
    assert made.totals.fp32_bytes == made.totals.weight_bytes_nominal == 4 * 174
    assert made.totals.ratio_emitted == 6.96


def test_json_is_plain_and_repeats() -> None:
    text = report().to_json()
    assert text == report().to_json()
    document = json.loads(text)
    assert (document["schema"], document["schema_version"]) == ("qcompile-report", 1)
    assert document["warnings"] == [NOT_ASSURED]
    assert document["totals"]["dice_float"] is None
    assert set(document["totals"]) >= {
        "dice_float",
        "dice_quantized",
        "weight_bytes_nominal",
        "weight_bytes_emitted",
        "arena_bytes",
        "macs",
        "parameters",
    }


def test_names_cannot_become_markup() -> None:
    text = to_markdown(report())
    assert "<script" not in text.replace("\\<script", "")
    assert "a\\|b" in text


def test_saturation_error_and_cosine_of_an_integer_tensor() -> None:
    made = Graph(
        "g", Stage.FLOAT, ("x",), ("y",),
        (Sigmoid(name="s", inputs=("x",), outputs=("y",)),),
        {"x": TensorType((1, 1, 2, 2)), "y": TensorType((1, 1, 2, 2))}, {},
    )  # fmt: skip
    from qcompile.report.layers import _Sums

    kind = TensorType(made.types["y"].shape, IntType(3, signed=True), Quantization.per_tensor(0.5))
    sums = _Sums(kind=kind)
    codes = np.array([3, -4, 1, 0], np.int8).reshape(1, 1, 2, 2)
    sums.add(np.array([2.0, -2.0, 0.5, 0.0], np.float32).reshape(1, 1, 2, 2), codes)
    found = sums.result()
    assert found.saturated == 0.5
    assert found.max_error == 1.0
    assert found.sqnr_db == pytest.approx(10 * math.log10(8.25 / 0.25), abs=0.01)


def test_artifacts_are_a_mapping_of_paths() -> None:
    assert Artifacts({"a": "b"}).files == {"a": "b"}
