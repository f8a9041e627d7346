from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qcompile.ops import Pad, PadMode
from tests.op_cases.build import CODES, activation, movement_case, pick, several, some
from tests.op_cases.case import OpCase


def cases(rng: np.random.Generator) -> Iterator[OpCase]:
    modes = tuple(PadMode)
    for index, element in enumerate(CODES):
        mode = modes[index % 3]
        spatial = several(rng, some(rng, 0, 2), 2, 5)
        shape = (1, some(rng, 2, 4), *spatial)
        channel_pads = several(rng, 2, 0, 1) if index % 2 else (0, 0)
        limit = [min(size - 1, 3) for size in spatial]
        op = Pad(
            name="pad",
            inputs=("x",),
            outputs=("y",),
            begins=(0, channel_pads[0], *(some(rng, 0, most) for most in limit)),
            ends=(0, channel_pads[1], *(some(rng, 0, most) for most in limit)),
            mode=mode,
            code=pick(rng, (0, element.low, element.high)) if mode is PadMode.CONSTANT else None,
        )
        yield movement_case(
            rng, f"pad_{mode.value}_{index}", op, {"x": activation(element, *shape)}
        )
