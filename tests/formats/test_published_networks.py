"""`fxp-paper` and `fxp-em` networks against the published float graph, evaluated in float64.

Every value must be equal: no tolerance. The float64 graph (unet.py) and the quantizers below are
written from the publication and its description alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qcompile.options import CompileOptions, LayerOverride, Target
from qcompile.pipeline import compile_model
from qcompile.result import CompileResult
from qcompile.sim.executor import Executor
from qcompile.types import Array
from tests.formats.unet import UNet

PIXEL = 1 / 16

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def paper(integer: int, fraction: int) -> Callable[[Array], Array]:
    def part(value: Array, digits: int) -> Array:
        steps = 2.0**digits
        return np.asarray(np.round(np.clip(value, 0, steps - 1) * steps) / steps)

    def quantize(x: Array) -> Array:
        magnitude = np.abs(x)
        whole = np.floor(magnitude)
        return np.asarray(np.sign(x) * (part(whole, integer) + part(magnitude - whole, fraction)))

    return quantize


def em(integer: int, fraction: int, lowest: int | None) -> Callable[[Array], Array]:
    clip = (2.0 ** (integer - 1) if integer else 0.0) + sum(2.0**-k for k in range(1, fraction + 1))

    def quantize(x: Array) -> Array:
        magnitude = np.where(x == 0, 1.0, np.abs(x))
        power = 2.0 ** np.round(np.log2(magnitude))
        if lowest is not None:
            power = np.where(power < 2.0**lowest, 0.0, power)
        return np.asarray(np.sign(x) * np.minimum(power, clip))

    return quantize


def compiled(path: Path, quantizer: str, wq: str, aq: str, target: Target) -> CompileResult:
    layers = (LayerOverride("c_*", wbits=wq, abits=aq, quantizer=quantizer),)
    return compile_model(
        path,
        CompileOptions(
            target=target,
            quantizer=quantizer,
            wbits=wq,
            abits=aq,
            input_scale=(PIXEL,),
            layers=layers,
            verify=target is not Target.SIM,
        ),
    )


def blocks(result: CompileResult, pixels: Array) -> dict[str, Array]:
    """Real values of every block's output, by block name."""
    graph = result.integer_graph
    values = Executor(graph).run({"x": pixels[None, None]}, taps="all")
    found = {}
    for value, codes in values.items():
        name = "last" if value == "y.codes" else value.removesuffix(".out")
        kind = graph.types[value]
        if (value.endswith(".out") or name == "last") and kind.quantization is not None:
            found[name] = codes[0].astype(np.float64) * kind.quantization.scale[0]
    return found


def check(
    net: UNet, result: CompileResult, weights: Callable[[Array], Array], acts: Callable[..., Array]
) -> None:
    rng = np.random.default_rng(7)
    for _ in range(3):
        pixels = rng.integers(0, 256, (net.size, net.size)).astype(np.uint8)
        wanted = net.reference(pixels * PIXEL, weights, acts)
        got = blocks(result, pixels)
        assert got.keys() == wanted.keys()
        for name, values in wanted.items():
            np.testing.assert_array_equal(got[name], values, err_msg=f"block {name}")
        assert np.unique(wanted["g"]).size > 8  # the comparison is not about zeros


@pytest.mark.parametrize("exact_norms", [True, False])
@pytest.mark.parametrize(("wq", "aq"), [("Q0.4", "Q6.0"), ("Q0.2", "Q4.0"), ("Q0.8", "Q8.0")])
def test_paper_networks_equal_the_float_graph(
    tmp_path: Path, wq: str, aq: str, exact_norms: bool
) -> None:
    net = UNet.random(3, exact_norms)
    result = compiled(net.save(tmp_path / "net.onnx"), "fxp-paper", wq, aq, Target.SIM)
    check(net, result, paper(0, int(wq[-1])), paper(int(aq[1]), 0))


@pytest.mark.parametrize("aq", ["Q3.3", "Q4.4"])
def test_fractions_in_activations_equal_the_float_graph(tmp_path: Path, aq: str) -> None:
    net = UNet.random(5, exact_norms=False)
    result = compiled(net.save(tmp_path / "net.onnx"), "fxp-paper", "Q0.4", aq, Target.SIM)
    # The table of a wrapping format ends at 2047 half steps.
    end = 2047.5 / 2 * 2.0 ** -int(aq[-1])
    quantize = paper(int(aq[1]), int(aq[-1]))
    check(net, result, paper(0, 4), lambda x: quantize(np.clip(x, -end, end)))


def test_em_networks_equal_the_float_graph(tmp_path: Path) -> None:
    net = UNet.random(11, exact_norms=False)
    result = compiled(net.save(tmp_path / "net.onnx"), "fxp-em", "Q0.4", "Q6.0", Target.SIM)
    check(net, result, em(0, 4, None), em(6, 0, -8))
