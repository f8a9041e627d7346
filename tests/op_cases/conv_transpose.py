from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import ConvTranspose
from tests.op_cases.build import (
    CODES,
    FILLS,
    STYLES,
    Style,
    activation,
    pick,
    several,
    some,
    sum_case,
    weights,
)
from tests.op_cases.case import OpCase


def _case(
    rng: np.random.Generator,
    name: str,
    axes: int,
    style: Style,
    fill: str,
    groups: int = 1,
    double: bool = False,
) -> OpCase:
    """With `double` the 2x2 stride 2 form of U-Nets."""
    kernel = (2,) * axes if double else several(rng, axes, 1, 4)
    strides = (2,) * axes if double else several(rng, axes, 1, 3)
    dilations = (1,) * axes if double else several(rng, axes, 1, 2)
    extra = (0,) * axes if double else tuple(some(rng, 0, stride - 1) for stride in strides)
    extents = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    # Negative pads extend the output; enough input keeps it non-empty.
    begin = tuple(0 if double else some(rng, -1, e - 1) for e in extents)
    end = tuple(0 if double else some(rng, -1, e - 1) for e in extents)
    spatial = tuple(some(rng, 2, 4) + extent for extent in extents)
    inputs, outputs = some(rng, 1, 4), some(rng, 1, 4)
    x = activation(pick(rng, CODES), 1, inputs * groups, *spatial)
    shape = (inputs * groups, outputs, *kernel)
    w, data = weights(rng, shape, 1, outputs * groups, fill if rng.random() < 0.5 else "random")
    op = ConvTranspose(
        name=name,
        inputs=("x", "w"),
        outputs=("y",),
        strides=strides,
        pads_begin=begin,
        pads_end=end,
        dilations=dilations,
        output_padding=extra,
        groups=groups,
    )
    return sum_case(rng, name, op, {"x": x, "w": w}, {"w": data}, style, fill)


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            yield _case(rng, f"conv_transpose_{index}", 2, style, fill)
        yield _case(rng, f"conv_transpose_double_{index}", 2, style, "random", double=True)
        yield _case(rng, f"conv_transpose_group_{index}", 2, style, "random", some(rng, 2, 3))
        yield _case(rng, f"conv_transpose_1d_{index}", 1, style, "random")
    yield _case(rng, "conv_transpose3d", 3, Style.CHANNEL, "random")
