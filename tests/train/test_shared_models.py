"""Networks of practice go into torch and come back as ONNX and plan with the same integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcompile.boundary import InputKind
from qcompile.feeds import input_specs
from qcompile.importer import declared_shapes, import_model
from qcompile.options import CompileOptions
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.base import run_passes
from qcompile.passes.calibrate import calibrate
from qcompile.pipeline import simplify_passes
from qcompile.train.model_file import model_files
from qcompile.train.network import make_trainable
from tests.train.networks import shake

MODELS = (
    "cvc_resunet",
    "em_unet16",
    "monai_basicunet_d18",
    "nnunet_resenc_l13",
    "pancreas_unet16",
    "sedgen_unet",
    "selfie_segmentation",
    "smp_unet_r18_d18b",
    "smp_unet_r18_l17",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_back_again(shared_dir: Path, name: str) -> None:
    """`model_files` compares every value on made-up images, and raises where one differs."""
    path = shared_dir / "models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"no {path.name} in the shared folder")
    shapes = {
        value: tuple(1 if size is None else size for size in sizes)
        for value, sizes in declared_shapes(path).items()
    }
    options = CompileOptions(wbits="4", abits="6")
    graph = run_passes(import_model(path, shapes), simplify_passes(options))
    specs = input_specs(graph, InputKind.UINT8, options)
    rng = np.random.default_rng(0)
    feeds = [{value: rng.random(graph.types[value].shape, np.float32) for value in graph.inputs}]
    plan = assign_formats(graph, options)
    network = make_trainable(graph, plan, specs, options, calibrate(graph, feeds))
    shake(network, 1, 0.01)
    files = model_files(network, {})
    assert len(files.plan.layers) == len(graph.ops)
