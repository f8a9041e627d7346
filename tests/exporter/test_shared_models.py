"""The trained networks beside the repository: checked, run, and imported again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from qcompile.exporter.quant_functions import with_functions
from qcompile.options import CompileOptions, Target
from qcompile.pipeline import compile_model
from qcompile.sim.executor import Executor
from tests.exporter.networks import DIALECTS, model_of

pytest.importorskip("onnxruntime")

DATA = {
    "gm_unet8": "spinalcord_gm",
    "cvc_resunet": "cvc_clinicdb",
    "pancreas_unet16": "pancreas_ct",
    "em_unet16": "em_isbi2012",
}
TIES = {"gm_unet8": 0.01}
"""Bilinear resizing by 2 has sixteenths of a step as results."""

QUICK = (
    ("gm_unet8", 4, 6, Target.QDQ),
    ("cvc_resunet", 8, 8, Target.QONNX),
)


def check(name: str, wbits: int, abits: int, target: Target, shared: Path, folder: Path) -> None:
    """Exports, checks, verifies; imports again and compares all outputs."""
    path = shared / "models" / f"{name}.onnx"
    (shape,) = (
        [size.dim_value for size in item.type.tensor_type.shape.dim]
        for item in onnx.load(str(path)).graph.input
    )
    with np.load(shared / "data" / f"{DATA[name]}.npz") as data:
        pixels = data["train_x"][:2, : shape[2], : shape[3]]
        tested = data["val_x"][:2, : shape[2], : shape[3]]
    np.save(folder / "calib.npy", pixels)
    options = CompileOptions(
        target=target,
        wbits=wbits,
        abits=abits,
        calib=folder / "calib.npy",
        effort="nearest",
        verify=True,
    )
    result = compile_model(path, options)
    model = model_of(result)
    onnx.checker.check_model(with_functions(model), full_check=True)
    details = result.report.details
    assert details["onnx_codes_one_step_off"] < TIES.get(name, 1e-4) * details["onnx_codes"]
    assert details["onnx_largest_distance"] < 0.51
    if name == "gm_unet8":
        return  # its codes begin elsewhere in every channel, which import does not know of
    exported = folder / "exported.onnx"
    exported.write_bytes(model.SerializeToString())
    again = compile_model(exported, CompileOptions(target=Target.SIM, calib=options.calib))
    before, after = Executor(result.integer_graph), Executor(again.integer_graph)
    for image in tested:
        planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        feed = {"input": planes[None]}
        for output, expected in before.run(feed).items():
            np.testing.assert_array_equal(after.run(feed)[output], expected)


@pytest.mark.parametrize(("name", "wbits", "abits", "target"), QUICK)
def test_some(
    name: str, wbits: int, abits: int, target: Target, shared_dir: Path, tmp_path: Path
) -> None:
    check(name, wbits, abits, target, shared_dir, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize(("wbits", "abits"), [(8, 8), (4, 6)])
@pytest.mark.parametrize("target", DIALECTS)
def test_all(
    name: str, wbits: int, abits: int, target: Target, shared_dir: Path, tmp_path: Path
) -> None:
    check(name, wbits, abits, target, shared_dir, tmp_path)
