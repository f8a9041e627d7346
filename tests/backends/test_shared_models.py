"""Real networks: the C they become equals the simulator in every element of every tensor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from qcompile.options import CompileOptions
from qcompile.pipeline import compile_model

DATA = {
    "cvc_resunet": "cvc_clinicdb",
    "em_unet16": "em_isbi2012",
    "gm_unet8": "spinalcord_gm",
    "pancreas_unet16": "pancreas_ct",
}
"""Trained networks and their images; the others come with one input each."""

EXPORTED = (
    "monai_basicunet_d18",
    "nnunet_resenc_l13",
    "sedgen_unet",
    "selfie_segmentation",
    "smp_unet_r18_d18b",
    "smp_unet_r18_l17",
)

SETTINGS = ("8/8", "4/6", "ternary/4", "8/32")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", [*DATA, *EXPORTED])
def test_c_equals_the_simulator(name: str, setting: str, shared_dir: Path, tmp_path: Path) -> None:
    model = shared_dir / "models" / f"{name}.onnx"
    if name in DATA:
        calib = shared_dir / "data" / f"{DATA[name]}.npz"
        source = f"{calib}:train_x"
    else:
        calib = shared_dir / "models" / f"{name}.npz"
        inputs = {}
        if calib.exists():
            with np.load(calib) as archive:
                inputs = {
                    key.removeprefix("in/"): archive[key]
                    for key in archive.files
                    if key.startswith("in/")
                }
        np.savez(tmp_path / "inputs.npz", **inputs)
        source = str(tmp_path / "inputs.npz")
    if not (model.exists() and calib.exists()):
        pytest.skip(f"{model.name} or its data are not there")
    wbits, abits = setting.split("/")
    options = CompileOptions(wbits=wbits, abits=abits, calib=source, calib_images=4, verify=True)
    result = compile_model(model, options)
    assert result.verified
    emitted = json.loads(result.report.to_json())["totals"]["weight_bytes_emitted"]
    assert emitted == sum(row.const_bytes or 0 for row in result.report.layers)
