"""Formats by name on random networks: C equals the simulator in every tensor."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from random import Random

import pytest

from qcompile.errors import QCompileError
from qcompile.options import CompileOptions, Target
from qcompile.pipeline import compile_model
from tests.properties.compiled import example

FORMATS: tuple[dict[str, str], ...] = (
    {"quantizer": "fxp-paper"},
    {"quantizer": "fxp-paper", "abits": "Q3.3"},
    {"quantizer": "fxp-em"},
    {"quantizer": "dorefa", "wbits": "3", "abits": "4"},
    {"quantizer": "twn"},
    {"quantizer": "fixed", "wbits": "Q0.4", "abits": "Q4.2"},
    {"quantizer": "dorefa", "wbits": "4", "abits": "32"},
    {"quantizer": "fxp-em", "abits": "32"},
)
REFUSALS = ("multiples of 1/", "exceeds 64 bits", "no multiplier rounds so", "on one side of 0")
"""What single networks are refused for, with a message of one line."""

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def check(seed: int, folder: Path) -> bool:
    """Compiles, runs and compares one network; False if it is refused."""
    found = example(seed, folder, benign=False, layers=Random(seed).randint(2, 7))
    plain = CompileOptions(
        target=Target.C,
        verify=True,
        calib=found.calib,
        input_kind=found.options.input_kind,
        **FORMATS[seed % len(FORMATS)],  # type: ignore[arg-type]
    )
    options = dataclasses.replace(
        plain,
        input_scale=found.options.input_scale,
        input_mean=found.options.input_mean,
        input_std=found.options.input_std,
    )
    try:
        assert compile_model(found.path, options).verified
    except QCompileError as error:
        if not any(reason in str(error) for reason in REFUSALS):
            raise
        return False
    return True


@needs_gcc
@pytest.mark.parametrize("seed", range(8))
def test_c_equals_the_simulator(seed: int, tmp_path: Path) -> None:
    assert check(seed, tmp_path)


@needs_gcc
@pytest.mark.slow
def test_many_random_networks(tmp_path: Path) -> None:
    refused = [seed for seed in range(8, 168) if not check(seed, tmp_path)]
    assert len(refused) < 16, refused
