"""What is counted of weights and outputs."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.graph import Graph, Stage
from qcompile.ops import Conv
from qcompile.report.histograms import SAMPLE, OutputHistograms, layer_histograms
from qcompile.report.html.histograms import histogram_picture
from qcompile.types import (
    Array,
    Codebook,
    CodebookKind,
    CodeLimits,
    IntType,
    Quantization,
    TensorType,
)
from tests.report.made import report


def output_graph(kind: TensorType) -> Graph:
    return Graph("g", Stage.INTEGER, ("x",), ("y",), (), {"y": kind}, {})


def counted(kind: TensorType, *pairs: tuple[Array, Array]) -> OutputHistograms:
    found = OutputHistograms(output_graph(kind))
    for real, codes in pairs:
        found.add("y", real, codes)
    return found


def test_clipping_is_counted_beyond_the_outermost_codes() -> None:
    kind = TensorType((1, 1, 10), IntType(2, signed=False), Quantization.per_tensor(0.5))
    real = np.array([[[-0.3, -0.2, 0.0, 0.4, 0.6, 1.0, 1.4, 1.7, 1.8, 9.0]]], np.float32)
    codes = np.clip(np.rint(real / 0.5), 0, 3).astype(np.uint8)
    (result,) = counted(kind, (real, codes)).result().values()
    assert (result.low, result.high, result.step) == (-0.25, 1.75, 0.5)
    assert (result.below, result.above) == (1, 2)
    assert result.clipped == pytest.approx(0.3)
    assert result.bars == (3, 2, 1, 4)
    assert sum(result.real) == 10
    assert result.real[-1] == 1  # 9.0 lies in the last bin, far beyond its edge
    assert (result.smallest, result.largest) == (np.float32(-0.3), 9.0)


def test_images_add_up_and_large_tensors_are_sampled() -> None:
    kind = TensorType((1, 4, 200, 200), IntType(8), Quantization.per_tensor(1.0))
    real = np.tile(np.arange(-100, 100, dtype=np.float32), 800).reshape(kind.shape)
    pair = (real, real.astype(np.int8))
    one = counted(kind, pair).result()["y"]
    two = counted(kind, pair, pair).result()["y"]
    assert SAMPLE / 2 < sum(one.real) < 2 * SAMPLE
    assert two.real == tuple(2 * count for count in one.real)
    assert len(one.bars) == 64
    # An even sample: every column of the rows comes up alike.
    inner = one.bars[8:56]
    assert max(inner) <= 1.1 * min(inner)
    assert one == counted(kind, pair).result()["y"]


def test_limits_of_channels_are_the_range() -> None:
    limits = CodeLimits((-3, -1), (5, 4))
    kind = TensorType((1, 2, 4), IntType(8), Quantization.per_tensor(1.0), limits=limits)
    data = np.zeros((1, 2, 4), np.float32)
    result = counted(kind, (data, data.astype(np.int8))).result()["y"]
    assert (result.low, result.high) == (-3.5, 5.5)
    assert len(result.bars) == 9


def test_float_tensors_have_no_codes() -> None:
    kind = TensorType((1, 1, 100))
    real = np.linspace(-1, 3, 100, dtype=np.float32).reshape(1, 1, 100)
    result = counted(kind, (real, real)).result()["y"]
    assert result.low is None
    assert result.high is None
    assert result.bars == ()
    assert sum(result.real) == 100
    assert result.clipped == 0


def conv(weights: str) -> Conv:
    return Conv(
        name="c",
        inputs=("x", weights),
        outputs=("y",),
        strides=(1,),
        pads_begin=(0,),
        pads_end=(0,),
        dilations=(1,),
    )


def test_weights_are_counted_in_steps_of_their_channel() -> None:
    real = np.array([[[0.4, -0.9, 0.1]], [[4.0, -1.0, 9.0]]], np.float32)
    codes = np.array([[[1, -1, 0]], [[1, 0, 1]]], np.int8)
    quantization = Quantization((0.5, 5.0), axis=0)
    book = Codebook(CodebookKind.TERNARY, 3)
    kind = TensorType(codes.shape, IntType(2, narrow=True), quantization, book)
    types = {"x": TensorType((1, 1, 3)), "y": TensorType((1, 2, 1))}
    before = Graph(
        "g", Stage.FLOAT, ("x",), ("y",), (conv("w"),),
        {**types, "w": TensorType(real.shape)}, {"w": real},
    )  # fmt: skip
    after = Graph(
        "g", Stage.INTEGER, ("x",), ("y",), (conv("q"),), {**types, "q": kind}, {"q": codes}
    )
    found = layer_histograms(before, after, {})["c"]
    assert found.output is None
    assert found.weights is not None
    assert found.weights.in_steps
    assert found.weights.bars == (1, 2, 3)
    assert (found.weights.low, found.weights.high) == (-1.5, 1.5)
    # In steps: 0.8, -1.8, 0.2 and 0.8, -0.2, 1.8.
    assert (found.weights.below, found.weights.above) == (1, 1)


def test_the_picture_marks_what_is_clipped() -> None:
    picture = histogram_picture(report())
    assert picture is not None
    card = picture.cards[0]
    assert [plot.caption for plot in card.plots] == ["Weights in steps, 8 bit", "Output, 6 bit"]
    plot = card.plots[0]
    assert plot.clipped == "2.00 % clipped"
    assert plot.beyond.count("M") == 1
    assert [mark.label for mark in plot.marks] == ["−2", "0", "1"]
    assert len(plot.ends) == 2
    inside = [bar for bar in plot.bars if plot.ends[0] <= bar.x <= plot.ends[1]]
    assert len(inside) == len(plot.bars) == 4
    assert plot.bars[1].height > plot.bars[0].height
    assert [card.name for card in picture.hidden] == ["pool", "join"]
