"""Convolution, scale, norm and ternary activation against rational arithmetic, ties included."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from qcompile.numerics import Thresholds
from qcompile.ops import Conv, SumOp
from qcompile.options import CompileOptions, InputChoice, Target
from qcompile.pipeline import compile_model
from qcompile.result import CompileResult
from qcompile.sim.executor import Executor
from qcompile.types import Array
from tests.formats.ternary import TernaryNet

REACH = 12
"""Weights of a filter, and the largest sum."""
SUMS = range(-REACH, REACH + 1)
HALF = Fraction(1, 2)


def every_sum() -> Array:
    """Ternary pixels [1, REACH, 1, n]: a filter of ones has another sum at each."""
    pixels = np.zeros((1, REACH, 1, len(SUMS)), np.float32)
    for place, total in enumerate(SUMS):
        pixels[0, : abs(total), 0, place] = np.sign(total)
    return pixels


def code(value: Fraction, limit: Fraction = HALF) -> int:
    return (value > limit) - (value < -limit)


def neighbours(value: Fraction) -> list[np.float32]:
    """The nearest float32 of a number, and those beside it."""
    middle = np.float32(float(value))
    return [
        np.nextafter(middle, np.float32(-np.inf)),
        middle,
        np.nextafter(middle, np.float32(np.inf)),
    ]


def channels(seed: int) -> tuple[list[np.float32], list[np.float32], list[np.float32]]:
    """Scale, gain and shift of filters, most with a sum at or next to a tie."""
    rng = np.random.default_rng(seed)
    alphas, gains, shifts = [], [], []
    for index in range(30):
        if index % 3:
            numbers = rng.uniform(0.01, 2), rng.uniform(0.05, 3) * rng.choice([-1, 1])
        else:  # few bits: ties can be hit exactly
            numbers = rng.integers(1, 9) / 8, rng.integers(-8, 9) / 4
        alpha, gain = map(np.float32, numbers)
        total = int(rng.integers(-REACH, REACH + 1))
        product = Fraction(float(alpha)) * Fraction(float(gain)) * total
        tie = (HALF if rng.random() < 0.5 else -HALF) - product
        for shift in neighbours(tie):
            alphas.append(alpha)
            gains.append(gain)
            shifts.append(shift)
    return alphas, gains, shifts


def compiled(path: Path, target: Target = Target.SIM) -> CompileResult:
    options = CompileOptions(
        target=target, input_kind=InputChoice.FLOAT32, verify=target is not Target.SIM
    )
    return compile_model(path, options)


def outputs(result: CompileResult, pixels: Array) -> Array:
    return Executor(result.integer_graph).run({"x": pixels})["y"]


@pytest.mark.parametrize(
    ("seed", "spelling"), list(enumerate(("published", "sign", "where", "shifted")))
)
def test_two_thresholds_a_channel(tmp_path: Path, seed: int, spelling: str) -> None:
    alphas, gains, shifts = channels(seed)
    scales = np.array(alphas, np.float32)[:, None, None, None]
    net = TernaryNet()
    weights = np.broadcast_to(scales, (len(alphas), REACH, 1, 1))
    norm = net.norm(net.conv(net.ternary("x", "sign"), weights), np.array(gains), np.array(shifts))
    path = net.save(tmp_path / "net.onnx", net.ternary(norm, spelling), x=(1, REACH, 1, len(SUMS)))
    result = compiled(path)
    (conv,) = (op for op in result.integer_graph.ops if isinstance(op, Conv))
    assert isinstance(conv.epilogue, Thresholds)
    assert (conv.epilogue.low, conv.epilogue.step, len(conv.epilogue.thresholds)) == (-1, 1, 2)
    found = outputs(result, every_sum())
    ties = 0
    for channel, (alpha, gain, shift) in enumerate(zip(alphas, gains, shifts, strict=True)):
        for place, total in enumerate(SUMS):
            product = Fraction(float(alpha)) * Fraction(float(gain)) * total
            value = product + Fraction(float(shift))
            ties += abs(value) == HALF
            assert found[0, channel, 0, place] == code(value), (channel, total)
    assert ties > 5


def test_a_bias_counts_and_empty_filters_and_gains_of_zero_are_constants(tmp_path: Path) -> None:
    net = TernaryNet()
    weights = np.full((6, REACH, 1, 1), 0.25, np.float32)
    weights[2] = 0
    bias = np.array([0.5, -0.25, 2.0, 1.0, -4.0, 0.75], np.float32)
    gain = np.array([1, -1, 0.5, 0, 0.25, -2], np.float32)
    shift = np.array([0, 0.5, -0.5, 0.5, 0.5, 1.25], np.float32)
    norm = net.norm(net.conv(net.ternary("x"), weights, bias), gain, shift)
    path = net.save(tmp_path / "net.onnx", net.ternary(norm), x=(1, REACH, 1, len(SUMS)))
    found = outputs(compiled(path), every_sum())
    for channel in range(6):
        for place, total in enumerate(SUMS):
            alpha = Fraction(float(weights[channel, 0, 0, 0]))
            value = Fraction(float(gain[channel])) * (
                alpha * total + Fraction(float(bias[channel]))
            )
            value += Fraction(float(shift[channel]))
            assert found[0, channel, 0, place] == code(value), (channel, total)


def test_sums_without_weights_are_as_exact(tmp_path: Path) -> None:
    """A norm behind an average: falling channels cannot negate weights."""
    net = TernaryNet()
    gains = np.array([1, -1, 0.75, -0.3, 0, -2.5], np.float32)
    shifts = np.array([0, 0.5, -0.25, 0.1, 0.5, -1.125], np.float32)
    pooled = net.add("AveragePool", net.ternary("x"), kernel_shape=[2, 2], strides=[2, 2])
    result = net.ternary(net.norm(pooled, gains, shifts))
    path = net.save(tmp_path / "net.onnx", result, x=(1, 6, 2, 18))
    pixels = np.zeros((1, 6, 2, 18), np.float32)
    for total in range(-4, 5):
        block = np.where(np.arange(4) < abs(total), np.sign(total), 0).reshape(2, 2)
        pixels[:, :, :, 2 * (total + 4) : 2 * (total + 5)] = block
    found = outputs(compiled(path), pixels)
    for channel in range(6):
        for place, total in enumerate(range(-4, 5)):
            gain, shift = Fraction(float(gains[channel])), Fraction(float(shifts[channel]))
            assert found[0, channel, 0, place] == code(gain * total / 4 + shift), (channel, total)


@pytest.mark.parametrize("limit", [0.3, 0.7, 1.0])
def test_other_limits(tmp_path: Path, limit: float) -> None:
    net = TernaryNet()
    at = np.float32(limit)
    alpha, shift = np.float32(0.1), np.array([0, at - 3 * np.float32(0.1), 0.35], np.float32)
    scores = net.norm(
        net.conv(net.ternary("x"), np.full((3, REACH, 1, 1), alpha)),
        np.array([1, 1, -1], np.float32),
        shift,
    )
    size = net.add("Greater", net.add("Abs", scores), net.constant(at))
    mask = net.add("Cast", size, to=1)
    y = net.add("Mul", net.add("Sign", scores), mask)
    path = net.save(tmp_path / "net.onnx", y, x=(1, REACH, 1, len(SUMS)))
    found = outputs(compiled(path), every_sum())
    for channel, sign in enumerate((1, 1, -1)):
        for place, total in enumerate(SUMS):
            value = sign * Fraction(float(alpha)) * total + Fraction(float(shift[channel]))
            wanted = code(value, Fraction(float(at)))
            assert found[0, channel, 0, place] == wanted, (channel, total)


def test_any_width_of_activations_leaves_them_ternary(tmp_path: Path) -> None:
    net = TernaryNet(1)
    y = net.layer(net.layer(net.ternary("x"), 3, 4, "published"), 4, 5, "sum")
    logits = net.conv(y, net.rng.normal(size=(2, 5, 1, 1)))
    path = net.save(tmp_path / "net.onnx", logits, x=(1, 3, 8, 8))
    for abits in ("4", "8", "16"):
        graph = compile_model(path, CompileOptions(target=Target.SIM, abits=abits)).integer_graph
        convs = [op for op in graph.ops if isinstance(op, Conv)]
        assert [str(graph.output_type(op).element) for op in convs[:2]] == ["i2n", "i2n"]
        for op in convs[:2]:
            assert graph.output_type(op).quantization is not None
            assert graph.output_type(op).quantization.scale == (1.0,)  # type: ignore[union-attr]
            assert str(graph.types[op.inputs[1]].element) == "i2n"
        assert all(isinstance(op, SumOp) for op in convs)
