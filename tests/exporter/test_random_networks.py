"""Random networks with random plans: every dialect agrees with the simulator, operator by operator.

Failures are reproduced by their seed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from qcompile.errors import UnsupportedError, UsageError
from qcompile.pipeline import compile_model
from tests.exporter.networks import DIALECTS
from tests.properties.compiled import example

pytest.importorskip("onnxruntime")

SEEDS = (0, 5, 10, 14, 38, 52, 61, 67, 94, 98, 316, 337, 380)
"""Some at random, and all that once found something wrong."""

REFUSALS = ("binary output would fall", "a class map cannot follow it", "rounds as fxp")


def check(seed: int, folder: Path) -> None:
    """One network in the three dialects, with pixels or INT4 weights in some."""
    found = example(seed, folder, seed % 3 == 0, 3 + seed % 5)
    for target in DIALECTS:
        options = dataclasses.replace(found.options, target=target, verify=True, mcu=False)
        if target.value == "qdq" and seed % 2:
            options = dataclasses.replace(options, onnx_weights="int4")
        if found.pixels and seed % 4 == 1:
            options = dataclasses.replace(options, onnx_input="uint8")
        try:
            details = compile_model(found.path, options).report.details
        except (UnsupportedError, UsageError) as error:
            if not any(reason in str(error) for reason in REFUSALS):
                raise
        else:
            assert details["runs"] > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_some(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(400, 520))
def test_many(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)
