"""The simplified networks compute what the imported ones do, with fewer operators."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.passes.base import run_passes
from qcompile.passes.drop_no_ops import DropNoOps
from qcompile.passes.fold_affine import FoldAffine
from qcompile.passes.fuse_activations import FuseActivations
from qcompile.passes.move_transposes import MoveTransposes
from qcompile.passes.prune_filters import PruneFilters
from qcompile.passes.recognise_group_norm import RecogniseGroupNorm
from qcompile.passes.recognise_silu import RecogniseSilu
from qcompile.sim.executor import Executor
from qcompile.types import Array

SIMPLIFY = (
    MoveTransposes(),
    RecogniseGroupNorm(),
    FoldAffine(),
    RecogniseSilu(),
    FuseActivations(),
    DropNoOps(),
)
LEFT = {
    "cvc_resunet": {"Affine": 1},
    "em_unet16": {},
    "gm_unet8": {},
    "monai_basicunet_d18": {"GroupNorm": 18},
    "nnunet_resenc_l13": {"GroupNorm": 19},
    "pancreas_unet16": {},
    "sedgen_unet": {},
    "selfie_segmentation": {"HardSwish": 11, "Transpose": 1, "Reshape": 1},
    "smp_unet_r18_d18b": {},
    "smp_unet_r18_l17": {},
}
"""Operators of the simplified network out of those that the passes could have removed."""
WATCHED = {"Affine", "Rescale", "Transpose", "Reshape", "Pad", "GroupNorm", "Silu", "HardSwish"}
TOLERANCE = 1e-4


def simplified(shared_dir: Path, name: str) -> tuple[Graph, Graph]:
    path = shared_dir / "models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"no {path.name} in the shared folder")
    graph = import_model(path)
    return graph, run_passes(graph, SIMPLIFY)


def outputs(graph: Graph) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    feeds = {name: rng.random(graph.types[name].shape, np.float32) for name in graph.inputs}
    return Executor(graph).run(feeds)


@pytest.mark.parametrize("name", LEFT)
def test_same_function(shared_dir: Path, name: str) -> None:
    before, after = simplified(shared_dir, name)
    assert after.outputs == before.outputs
    left = Counter(op.kind for op in after.ops if op.kind in WATCHED)
    assert left == LEFT[name]
    expected = outputs(before)
    for value, data in outputs(after).items():
        limit = TOLERANCE * float(np.abs(expected[value]).max())
        np.testing.assert_allclose(data, expected[value], rtol=0, atol=limit)


@pytest.mark.parametrize("name", LEFT)
def test_pruned(shared_dir: Path, name: str) -> None:
    """A third of the filters goes; the network stays sound and keeps its interface."""
    _, before = simplified(shared_dir, name)
    after = run_passes(before, [PruneFilters(0.34)])
    assert {v: after.types[v] for v in after.outputs} == {
        v: before.types[v] for v in before.outputs
    }
    sizes = [sum(data.size for data in g.constants.values()) for g in (before, after)]
    assert sizes[1] < 0.7 * sizes[0]
    assert all(np.isfinite(data).all() for data in outputs(after).values())
