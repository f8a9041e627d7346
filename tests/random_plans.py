"""Random options for a random network: widths, quantizers, overrides, ranges, boundaries."""

from __future__ import annotations

from random import Random

from qcompile.boundary import channels
from qcompile.graph import Graph
from qcompile.ops import Conv, ConvTranspose, MatMul
from qcompile.options import (
    CompileOptions,
    InputChoice,
    LayerOverride,
    OutputKind,
    RangeMethod,
)

WIDTHS = ("2", "3", "4", "5", "6", "7", "8")
NORMALISATIONS: tuple[tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]], ...] = (
    ((1 / 255,), (0.0,), (1.0,)),
    ((1 / 255,), (0.0,), (1.0,)),
    ((1.0,), (0.0,), (1.0,)),
    ((1 / 255,), (0.45,), (0.225,)),
    ((1 / 128,), (1.0,), (1.0,)),
)
"""input scale, mean and standard deviation"""

OUTPUTS = (*[OutputKind.AUTO] * 5, *tuple(OutputKind))


def random_options(rng: Random, graph: Graph, pixels: bool, calib: str | None) -> CompileOptions:
    """Options that are sound for the simplified float graph."""
    quantizer = rng.choice(("scaled", "scaled", "scaled", "fixed", "ternary", "binary", "pow2"))
    if quantizer in ("ternary", "binary"):
        wbits = quantizer
    elif quantizer == "pow2":
        wbits = rng.choice(WIDTHS[:6])
    else:
        wbits = rng.choice((*WIDTHS, *WIDTHS, "16", "32", "ternary", "binary"))
    abits = rng.choice((*WIDTHS, *WIDTHS, *WIDTHS, "16", "16", "32", "ternary", "binary"))
    if wbits == "7" and quantizer == "pow2" and abits == "16":
        abits = "8"  # products of more than 64 bits are refused
    first_last = rng.choice(("8", "8", "8", "2", "6"))
    if quantizer == "pow2":
        first_last = rng.choice(("7", "6", "4"))
    kind = rng.choice(OUTPUTS)
    # Another output kind renames and removes operators at the end.
    layers = tuple(_overrides(rng, graph)) if kind is OutputKind.AUTO else ()
    scale, mean, std = rng.choice(NORMALISATIONS) if pixels else NORMALISATIONS[0]
    shapes = [graph.types[name].shape for name in graph.inputs]
    if pixels and len(shapes) == 1 and rng.random() < 0.2:
        count = channels(shapes[0])
        mean = tuple(rng.choice((0.0, 0.3, 0.5)) for _ in range(count))
        std = tuple(rng.choice((0.2, 1.0)) for _ in range(count))
    if quantizer in ("ternary", "binary"):
        first_last = rng.choice(("8", "2", "6"))
    return CompileOptions(
        wbits=wbits,
        abits=abits,
        quantizer=quantizer,
        first_last_bits=first_last,
        calib=calib,
        range_method=rng.choice(tuple(RangeMethod)),
        input_kind=InputChoice.UINT8 if pixels else InputChoice.FLOAT32,
        input_scale=scale,
        input_mean=mean,
        input_std=std,
        output_kind=kind,
        prune=rng.choice((0.0, 0.0, 0.0, 0.0, 0.3)),
        separate_weights=rng.random() < 0.2,
        mcu=rng.random() < 0.2,
        entry="net",
        layers=layers,
        inputs=tuple(
            LayerOverride(name, abits=rng.choice((*WIDTHS, "16", "32")))
            for name in graph.inputs
            if rng.random() < 0.2
        ),
    )


def _overrides(rng: Random, graph: Graph) -> list[LayerOverride]:
    overrides = []
    for op in graph.ops:
        if rng.random() > 0.15:
            continue
        weighted = isinstance(op, Conv | ConvTranspose | MatMul)
        rule = rng.choice(("width", "width", "fixed", "float", "ternary"))
        if rule == "width":
            wbits = rng.choice(WIDTHS) if weighted else None
            override = LayerOverride(op.name, wbits, rng.choice((*WIDTHS, "16")), "scaled")
        elif rule == "fixed":
            override = LayerOverride(op.name, "8" if weighted else None, "8", "fixed")
        elif rule == "float":
            override = LayerOverride(op.name, None, "32")
        else:
            override = LayerOverride(op.name, "ternary" if weighted else None, "6", "scaled")
        overrides.append(override)
    return overrides
