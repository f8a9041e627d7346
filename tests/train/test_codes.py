"""Fake quantizers in torch against the compiler's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompile.ops import Conv, ConvTranspose, MatMul
from qcompile.passes import weight_rows as arrays
from qcompile.passes.weight_quantizers import exact_rows, quantize_rows
from qcompile.plan import Format, Quantizer, parse_format
from qcompile.train.activation_quantizer import quantize_activation
from qcompile.train.weight_quantizer import WeightQuantizer
from qcompile.train.weight_rows import from_rows, to_rows
from qcompile.types import IntType, Quantization, TensorType

WINDOW = {"strides": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0), "dilations": (1, 1)}
CONV = Conv(name="conv", inputs=("x", "w"), outputs=("y",), **WINDOW)  # type: ignore[arg-type]
GROUPED = ConvTranspose(
    name="up",
    inputs=("x", "w"),
    outputs=("y",),
    output_padding=(0, 0),
    groups=2,
    **WINDOW,  # type: ignore[arg-type]
)
FORMATS = [
    parse_format(width, quantizer, "test", weights=True)
    for quantizer, widths in {
        Quantizer.SCALED: ("2", "4", "8", "16"),
        Quantizer.FIXED: ("3", "4", "8", "Q0.4"),
        Quantizer.TERNARY: ("ternary",),
        Quantizer.TWN: ("ternary",),
        Quantizer.BINARY: ("binary",),
        Quantizer.POW2: ("2", "5", "7"),
        Quantizer.DOREFA: ("2", "4", "8"),
        Quantizer.FXP_PAPER: ("4", "Q2.3"),
        Quantizer.FXP_EM: ("4", "Q2.3"),
    }.items()
    for width in widths
]


def weights(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    data = rng.normal(0, 0.3, (8, 3, 3, 3)) * rng.uniform(0.1, 4, (8, 1, 1, 1))
    data[5] = 0
    data[6, 0] = 0
    return data.astype(np.float32)


@pytest.mark.parametrize("chosen", FORMATS, ids=lambda f: f"{f.quantizer.value}-{f.width_name}")
def test_weights(chosen: Format) -> None:
    """At the start, and for the rules that follow from the weights anywhere, the real numbers are
    the compiler's; and the compiler reads the same codes out of them."""
    for seed in range(4):
        data = weights(seed)
        rows = data.reshape(8, -1).astype(np.float64)
        module = WeightQuantizer(CONV, data, chosen)
        found = module(torch.from_numpy(data).double()).detach().numpy().reshape(8, -1)
        if chosen.width_name != "16":  # whose scales need the largest code to occur
            np.testing.assert_allclose(found, quantize_rows(rows, chosen).reals(), 1e-13, 0)
        again = exact_rows(found.astype(np.float32), chosen)
        if again is None:
            again = quantize_rows(found.astype(np.float32), chosen)
        np.testing.assert_allclose(again.reals(), found, 3e-7, 0)


@pytest.mark.parametrize("chosen", FORMATS, ids=lambda f: f"{f.quantizer.value}-{f.width_name}")
def test_weights_have_gradients(chosen: Format) -> None:
    data = torch.from_numpy(weights(9)).requires_grad_()
    module = WeightQuantizer(CONV, weights(9), chosen)
    module(data).square().sum().backward()
    assert data.grad is not None
    assert torch.isfinite(data.grad).all()
    assert (data.grad != 0).any()
    for scale in module.parameters():
        assert scale.grad is not None


@pytest.mark.parametrize("op", [CONV, GROUPED, MatMul(name="m", inputs=("x", "w"), outputs=("y",))])
def test_rows(op: Conv | ConvTranspose | MatMul) -> None:
    shape = (4, 6) if isinstance(op, MatMul) else (4, 6, 2, 3)
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    rows = to_rows(op, torch.from_numpy(data))
    np.testing.assert_array_equal(rows.numpy(), arrays.to_rows(op, data))
    np.testing.assert_array_equal(from_rows(op, rows, shape).numpy(), data)


@pytest.mark.parametrize("width", ["1", "4", "6", "8"])
def test_uniform_activations(width: str) -> None:
    """Ties go up, both ends saturate; gradients as the docstring says."""
    element = IntType(int(width) + 1)
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    steps = np.concatenate([np.arange(-300, 300) / 2, [0.49999, -0.50001]])
    x = torch.from_numpy(steps * 0.5).requires_grad_()
    kind = TensorType((1, len(steps)), element, Quantization((0.5,)))
    y = quantize_activation(x, scale, kind)
    codes = np.clip(np.floor(steps + 0.5), element.low, element.high)
    np.testing.assert_array_equal(y.detach().numpy(), codes * 0.5)
    y.sum().backward()
    inside = (steps >= element.low) & (steps <= element.high)
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), inside)
    assert scale.grad is not None
    expected = np.where(inside, codes - steps, codes).sum()
    np.testing.assert_allclose(float(scale.grad), expected, rtol=1e-12)


def test_ternary_and_binary_activations() -> None:
    steps = np.array([-1.6, -0.51, -0.5, -0.2, 0.0, 0.5, 0.51, 3.0])
    x = torch.from_numpy(steps * 0.25)
    scale = torch.tensor(0.25, dtype=torch.float64)
    for quantizer, codes in (
        (Quantizer.TERNARY, [-1, -1, 0, 0, 0, 0, 1, 1]),
        (Quantizer.BINARY, [-1, -1, -1, -1, 1, 1, 1, 1]),
    ):
        chosen = Format(2 if quantizer is Quantizer.TERNARY else 1, quantizer)
        element = chosen.element(signed=True)
        kind = TensorType((8,), element, Quantization((0.25,)), chosen.codebook(element))
        found = quantize_activation(x, scale, kind)
        np.testing.assert_array_equal(found.numpy(), np.array(codes) * 0.25)


@pytest.mark.parametrize("quantizer", [Quantizer.FXP_PAPER, Quantizer.FXP_EM])
@pytest.mark.parametrize("width", ["6", "Q2.3"])
def test_published_activations(quantizer: Quantizer, width: str) -> None:
    chosen = parse_format(width, quantizer, "test")
    assert chosen.q is not None
    assert chosen.given_scale is not None
    element = chosen.element(signed=True)
    scale = chosen.given_scale
    kind = TensorType((2000,), element, Quantization((scale,)), chosen.codebook(element))
    x = np.random.default_rng(4).normal(0, 3, 2000)
    paper = quantizer is Quantizer.FXP_PAPER
    codes = chosen.q.paper_codes(x) if paper else chosen.q.em_codes(x)
    found = quantize_activation(torch.from_numpy(x), torch.tensor(scale).double(), kind)
    np.testing.assert_array_equal(found.numpy(), codes * scale)
