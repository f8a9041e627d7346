from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Conv
from qcompile.types import IntType
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
    kernel: tuple[int, ...] | None = None,
    groups: int = 1,
    per_group: tuple[int, int] | None = None,
    plain: bool = False,
    element: IntType | None = None,
) -> OpCase:
    kernel = kernel or several(rng, axes, 1, 3)
    dilations = (1,) * axes if plain else several(rng, axes, 1, 2)
    strides = (1,) * axes if plain else several(rng, axes, 1, 3)
    extents = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    spatial = tuple(extent + some(rng, 0, 6) for extent in extents)
    if plain:
        begin = end = tuple((k - 1) // 2 for k in kernel)
    else:
        begin = tuple(some(rng, 0, extent) for extent in extents)
        end = tuple(some(rng, 0, extent) for extent in extents)
    inputs, outputs = per_group or (some(rng, 1, 5), some(rng, 1, 5))
    x = activation(element or pick(rng, CODES), 1, inputs * groups, *spatial)
    shape = (outputs * groups, inputs, *kernel)
    extreme = fill if rng.random() < 0.5 else "random"
    bits = None if element is None else element.bits
    w, data = weights(rng, shape, 0, shape[0], extreme, bits)
    op = Conv(
        name=name,
        inputs=("x", "w"),
        outputs=("y",),
        strides=strides,
        pads_begin=begin,
        pads_end=end,
        dilations=dilations,
        groups=groups,
    )
    return sum_case(rng, name, op, {"x": x, "w": w}, {"w": data}, style, fill)


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    for index, style in enumerate(STYLES):
        for fill in FILLS:
            yield _case(rng, f"conv_{index}", 2, style, fill)
        yield _case(rng, f"conv3x3_{index}", 2, style, "random", (3, 3), 1, (6, 9), True)
        yield _case(rng, f"conv1x1_{index}", 2, style, "random", (1, 1), 1, (17, 5), True)
        yield _case(rng, f"conv_group_{index}", 2, style, "random", groups=some(rng, 2, 3))
        yield _case(rng, f"conv_depthwise_{index}", 2, style, "random", groups=5, per_group=(1, 1))
        yield _case(rng, f"conv_depthwise_double_{index}", 2, style, "random", None, 3, (1, 2))
        yield _case(rng, f"conv_1d_{index}", 1, style, "random")
    yield _case(rng, "conv3d", 3, Style.CHANNEL, "random")
    yield _case(rng, "conv3d_group", 3, Style.NEGATIVE_CHANNEL, "random", groups=2)
    wide = IntType(16)
    for style in (Style.CHANNEL, Style.NEGATIVE_CHANNEL, Style.THRESHOLDS_CHANNEL):
        yield _case(rng, "conv_16bit", 2, style, "low", (3, 3), 1, (40, 3), True, element=wide)
