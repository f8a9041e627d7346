"""Reports made by hand: a small U-Net with everything that `report.html` shows."""

from __future__ import annotations

import numpy as np

from qcompile.evaluate import Evaluation
from qcompile.report.document import Interface, Report, Totals
from qcompile.report.examples import choose_examples
from qcompile.report.hardware import HardwareReport, HardwareRow, Resources
from qcompile.report.histograms import Histogram, LayerHistograms
from qcompile.report.layers import Fidelity, LayerRow
from qcompile.report.metrics import overlaps, scores_from
from qcompile.report.trade_off import TradeOffPoint, WidthReason
from qcompile.types import Shape

EVIL = "<script>alert('x')</script><img src=http://x.test/y.png onerror=alert(1)>\"'"


def layer(
    name: str,
    operator: str,
    output: Shape,
    reads: tuple[str, ...],
    sqnr: float | None = 21.5,
    bits: int | None = None,
) -> LayerRow:
    """A row that writes the value `<name>.y`."""
    weighted = operator in ("Conv", "ConvTranspose")
    return LayerRow(
        name=name,
        operator=operator,
        inputs=(output,),
        output=output,
        weight_bits=(bits or 4) if weighted else None,
        weight_format="scale per channel" if weighted else None,
        activation_bits=6,
        activation_format="scale 0.01",
        accumulator_bits=18 if weighted else None,
        parameters=576 if weighted else 0,
        macs=1000 if weighted else 0,
        bops=24000 if weighted else 0,
        weight_bytes=288 if weighted else 0,
        const_bytes=300 if weighted else None,
        fidelity=Fidelity(0.0012, sqnr, 0.99, 2.5),
        value=f"{name}.y",
        reads=reads,
        kernel=(3, 3) if weighted else (),
    )


def unet_layers(evil: str = "") -> tuple[LayerRow, ...]:
    """Two levels and a skip; `evil` is put into the name of the first layer."""
    first = f"/enc.0/Conv{evil}"
    return (
        layer(first, "Conv", (1, 8, 32, 32), ("image",), 31.2, 8),
        layer("/pool", "MaxPool", (1, 8, 16, 16), (f"{first}.y",), 30.0),
        layer("/mid/Conv", "Conv", (1, 16, 16, 16), ("/pool.y",), 14.3),
        layer("/up/ConvTranspose", "ConvTranspose", (1, 8, 32, 32), ("/mid/Conv.y",), 8.1),
        layer("/join", "Concat", (1, 16, 32, 32), (f"{first}.y", "/up/ConvTranspose.y"), 12.0),
        layer("/head/Conv", "Conv", (1, 2, 32, 32), ("/join.y",), 24.9),
    )


def histogram(in_steps: bool = False) -> Histogram:
    """Codes -2..1, two parts each; two of 100 numbers lie above."""
    return Histogram(
        start=-3.0,
        width=0.5,
        real=(0, 4, 10, 20, 30, 20, 10, 4, 0, 2),
        bar_start=-2.5,
        bar_width=1.0,
        bars=(10, 40, 40, 10),
        low=-2.5,
        high=1.5,
        below=0,
        above=2,
        smallest=-2.2,
        largest=1.9,
        step=1.0,
        in_steps=in_steps,
    )


def evaluation() -> Evaluation:
    """Three images of 24 x 32 with two classes; the first loses, the last gains."""
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (1, 24, 32), dtype=np.uint8) for _ in range(3)]
    truth = np.zeros((24, 32), np.int64)
    truth[4:12, 4:20] = 1
    truth[12:20, 4:20] = 2
    smaller = truth.copy()
    smaller[:, 16:] = 0
    smallest = truth.copy()
    smallest[:, 10:] = 0
    labels = [truth] * 3
    before, after = [truth, truth, smaller], [smallest, truth, truth]
    scores = [
        scores_from([overlaps(found, truth, (1, 2)) for found in maps], (1, 2))
        for maps in (before, after)
    ]
    examples = choose_examples(images, labels, before, after, *scores)
    return Evaluation(scores[0], scores[1], examples)


def hardware(name: str = "/enc.0/Conv") -> HardwareReport:
    rows = (
        HardwareRow(name, "2 x 4", 5000, 2000.0, 8, 400, 4096, 512, True),
        HardwareRow("/head/Conv", "1 x 2", 1200, 8333.0, 2, 90, 512, 64, False),
    )
    resources = (
        Resources("estimated", "formulas", 900, 800, 3, 10, None, 2000.0),
        Resources("post-synthesis", "yosys 0.60", 870, 790, 3, 10),
    )
    return HardwareReport(
        "ecp5-25k", 100.0, 50000, 61000, True, 10, 5184, 576, 500, rows, resources, {"LUTs": 0.04}
    )


POINTS = (
    TradeOffPoint(20_000, 0.70, "ternary/4"),
    TradeOffPoint(26_000, 0.81, "mixed, 2.5 bits"),
    TradeOffPoint(40_000, 0.84, "4/6", True),
    TradeOffPoint(42_000, 0.80, "4/4"),
    TradeOffPoint(80_000, 0.845, "8/8"),
)


def report(evil: str = "", full: bool = True) -> Report:
    """A report; `full` has Dice, histograms, a trade-off and an accelerator."""
    layers = unet_layers(evil)
    dice = evaluation() if full else None
    return Report(
        version="0.1.0",
        model=f"unet{evil}.onnx",
        sha256="ab" * 32,
        inputs=(Interface("image", (1, 1, 32, 32), "uint8"),),
        outputs=(Interface("out", (1, 2, 32, 32), "float32"),),
        options={"target": "hdl" if full else "sim", "wbits": "4", "entry": f"model{evil}"},
        calibration="data" if full else "generated",
        calibration_images=8,
        totals=Totals(
            parameters=2304,
            macs=4000,
            bops=96000,
            fp32_bytes=9216,
            weight_bytes_nominal=1152,
            weight_bytes_emitted=None,
            arena_bytes=None,
            dice_float=None if dice is None else dice.dice_float,
            dice_quantized=None if dice is None else dice.dice_quantized,
        ),
        layers=layers,
        evaluation=dice,
        verified=True if full else None,
        warnings=(f"careful{evil}",),
        hardware=hardware(layers[0].name) if full else None,
        histograms={
            row.name: LayerHistograms(histogram(True) if row.kernel else None, histogram())
            for row in layers
        }
        if full
        else {},
        trade_off=tuple(
            TradeOffPoint(item.bytes, item.dice, item.label + evil, item.chosen) for item in POINTS
        )
        if full
        else (),
        width_reasons=(
            WidthReason(layers[2].name, "weights", 4, 0.0012, 0.0051),
            WidthReason(layers[2].name, "output", 6, 0.0001, 0.02),
            WidthReason(layers[3].name, "weights", 2, 0.3, None),
        )
        if full
        else (),
    )
