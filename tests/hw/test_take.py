"""Window streams of one tap as tensors."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.hw.streams import WindowStream
from qcompile.hw.take import Take
from qcompile.types import IntType
from tests.hw.drive import check_block


@pytest.mark.parametrize("seed", range(4))
def test_passes_elements_on(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = tuple(int(v) for v in rng.integers(0, 3, rng.integers(1, 4)))
    columns = tuple(int(v) for v in rng.integers(0, 2, rng.integers(1, 4)))
    element = IntType(int(rng.integers(1, 9)), bool(rng.random() < 0.5))
    folds, lanes = (int(v) for v in rng.integers(1, 4, 2))
    block = Take(WindowStream(rows, columns, folds, 1, element, lanes))
    assert block.output.channels == folds * lanes
    assert (block.output.height, block.output.width) == (len(rows), len(columns))
    check_block(block, rng)


def test_needs_one_tap() -> None:
    with pytest.raises(ValueError, match="window of 4 beats has no single element"):
        Take(WindowStream((0,), (0,), 1, 4, IntType(4)))
