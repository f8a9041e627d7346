"""Which tensor describes an image."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.options import CompileOptions
from qcompile.passes.base import run_passes
from qcompile.pipeline import simplify_passes
from qcompile.receptive_field import strides
from qcompile.suggest.features import Features, deepest_features
from tests.suggest.planted import DEEP, FEATURES, save_member


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    imported = import_model(save_member(tmp_path / "m.onnx", 1.0))
    return run_passes(imported, simplify_passes(CompileOptions()))


def test_the_deepest_map_is_found(graph: Graph) -> None:
    found = deepest_features(graph)
    assert found == Features(FEATURES, (2, 3), DEEP, Fraction(4))


def test_strides_are_input_pixels_for_a_step(graph: Graph) -> None:
    found = strides(graph)
    assert found[FEATURES] == (None, None, Fraction(2), Fraction(2))
    assert found["both"] == (None, None, Fraction(1), Fraction(1))
    assert "x" not in found


def test_more_channels_win_at_one_stride(graph: Graph) -> None:
    # Of the tensors at full size 'both' has the most channels.
    values = {name: deepest_features(graph, name) for name in strides(graph)}
    full = max((item for item in values.values() if item.stride == 1), key=lambda it: it.channels)
    assert full.value == "both"


def test_a_descriptor_is_the_mean_over_positions(graph: Graph) -> None:
    data = np.arange(3 * 16, dtype=np.float32).reshape(1, 3, 4, 4)
    assert deepest_features(graph).describe(data).tolist() == [7.5, 23.5, 39.5]


def test_another_tensor_by_its_own_name_or_its_operators(graph: Graph) -> None:
    assert deepest_features(graph, "both").value == "both"
    assert deepest_features(graph, "head").value == "y"


def test_names_that_are_none(graph: Graph) -> None:
    with pytest.raises(UsageError, match="'depe': does not exist in 'planted'; there are 'deep'"):
        deepest_features(graph, "depe")
    with pytest.raises(UsageError, match="'x': is no feature map"):
        deepest_features(graph, "x")
