"""The removed network equals the masked network: random ONNX networks, which have odd company."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest

from qcompile.graph import Graph
from qcompile.importer.model import convert_model
from qcompile.ops import AveragePool, Pad, PadMode
from qcompile.passes.base import run_passes
from qcompile.passes.drop_no_ops import DropNoOps
from qcompile.passes.fold_affine import FoldAffine
from qcompile.passes.fuse_activations import FuseActivations
from qcompile.passes.masked_constants import masked_constants
from qcompile.passes.move_transposes import MoveTransposes
from qcompile.passes.recognise_group_norm import RecogniseGroupNorm
from qcompile.passes.recognise_silu import RecogniseSilu
from qcompile.passes.remove_channels import remove_channels
from qcompile.sim.executor import Executor
from qcompile.types import Array
from qcompile.verifier import verify
from tests.passes.masked import masked, some_classes
from tests.random_networks import random_network

SIMPLIFY = (
    MoveTransposes(),
    RecogniseGroupNorm(),
    FoldAffine(),
    RecogniseSilu(),
    FuseActivations(),
    DropNoOps(),
)
TOLERANCE = 1e-3
"""Of the largest output: norms of channels that hardly vary magnify rounding."""


def run(graph: Graph, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    feeds = {n: rng.random(graph.types[n].shape, np.float32) for n in graph.inputs}
    with np.errstate(all="ignore"):
        return Executor(graph).run(feeds)


def frames_constants(graph: Graph) -> bool:
    """Whether something but a convolution pads with zeros, which the model of the masked network
    here does not follow."""
    return any(
        (isinstance(op, Pad) and op.mode is PadMode.CONSTANT)
        or (isinstance(op, AveragePool) and op.count_include_pad)
        for op in graph.ops
    )


@pytest.mark.parametrize("block", range(2))
@pytest.mark.parametrize("simplified", [True, False])
def test_random_networks(block: int, simplified: bool) -> None:
    compared = removed_channels = folded = 0
    for seed in range(60 * block, 60 * block + 60):
        model = random_network(Random(seed), benign=seed % 2 == 0, layers=14)
        graph = convert_model(model, Path())
        if simplified:
            graph = run_passes(graph, SIMPLIFY)
        classes = some_classes(graph, 0.5, seed)
        if not classes:
            continue
        constants = {} if frames_constants(graph) else masked_constants(graph, classes)
        after = remove_channels(graph, frozenset().union(*classes), constants)
        verify(after)
        expected, actual = run(masked(graph, classes, constants), seed), run(after, seed)
        for name in graph.outputs:
            assert after.types[name] == graph.types[name]
            if not np.isfinite(expected[name]).all() or not graph.types[name].is_float:
                continue
            limit = TOLERANCE * max(1e-3, float(np.abs(expected[name]).max()))
            np.testing.assert_allclose(
                actual[name], expected[name], rtol=0, atol=limit, err_msg=f"seed {seed}"
            )
            compared += 1
        removed_channels += sum(map(len, classes))
        folded += len(constants)
    # Else the seeds say nothing.
    assert compared > 5
    assert removed_channels > 20
    assert folded > 2
