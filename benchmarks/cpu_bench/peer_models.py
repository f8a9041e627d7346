"""Makes the models that the peers run from a float32 ONNX model.

    python peer_models.py KIND SOURCE DESTINATION

KIND: `onnxruntime-int8` (static quantization to QDQ, unsigned activations, signed weights with one
scale a channel), `openvino-fp32`, `openvino-int8` (NNCF, post training) or `openvino-qdq` (what
`onnxruntime-int8` wrote, given as SOURCE, for OpenVINO).
Calibrated on random images: only speed is measured here.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

CALIBRATION_IMAGES = 8


def images(model: Path) -> Iterator[dict[str, Any]]:
    """Random pixels in 0..1 by the name of the model's input."""
    port = onnx.load(model).graph.input[0]
    shape = [size.dim_value for size in port.type.tensor_type.shape.dim]
    random = np.random.default_rng(3)
    for _ in range(CALIBRATION_IMAGES):
        yield {port.name: random.random(shape, dtype=np.float32)}


def onnxruntime_int8(source: Path, destination: Path) -> None:
    """Quantizes with onnxruntime's own tools, graph optimised first as its guide says."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = images(source)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.feeds, None)

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            destination,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def openvino_fp32(source: Path, destination: Path) -> None:
    """Converts; weights stay float32."""
    import openvino

    model = openvino.Core().read_model(source)
    openvino.save_model(model, destination, compress_to_fp16=False)


def openvino_int8(source: Path, destination: Path) -> None:
    """Quantizes with NNCF's default settings."""
    import nncf
    import openvino

    feeds = [next(iter(feed.values())) for feed in images(source)]
    model = openvino.Core().read_model(source)
    quantized = nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds))
    openvino.save_model(quantized, destination)


def main() -> None:
    """Makes one model."""
    kind, source, destination = sys.argv[1:]
    make = {
        "onnxruntime-int8": onnxruntime_int8,
        "openvino-fp32": openvino_fp32,
        "openvino-int8": openvino_int8,
        "openvino-qdq": openvino_fp32,
    }[kind]
    make(Path(source), Path(destination))


if __name__ == "__main__":
    main()
