"""ONNX models as a target: what is emitted, and its comparison with the simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qcompile import __version__
from qcompile.backends.artifacts import Artifacts
from qcompile.backends.c.footprint import Footprint
from qcompile.boundary import InputSpec
from qcompile.exporter import ExportedModel, export_model
from qcompile.feeds import Feed
from qcompile.graph import Graph
from qcompile.onnx_options import OnnxInput, OnnxWeights
from qcompile.options import CompileOptions
from qcompile.report.hardware import HardwareReport
from qcompile.verify_onnx import verify_onnx


@dataclass(frozen=True)
class EmittedOnnx:
    """A QDQ, QCDQ or QONNX model."""

    graph: Graph
    model: ExportedModel
    specs: Mapping[str, InputSpec]
    artifacts: Artifacts
    layer_bytes: Mapping[str, int] | None = None
    constant_bytes: int | None = None
    arena_bytes: int | None = None
    hardware: HardwareReport | None = None
    footprint: Footprint | None = None

    def verify(self, feeds: Sequence[Feed]) -> dict[str, Any]:
        """Runs the model in onnxruntime and compares every tensor, as far as floats allow."""
        return verify_onnx(self.model, self.graph, self.specs, feeds).details()


def emit_onnx(
    quantized: Graph,
    integer: Graph,
    specs: Mapping[str, InputSpec],
    options: CompileOptions,
    metadata: Mapping[str, str],
) -> EmittedOnnx:
    """The model of `options.target`.

    Args:
        quantized: what is exported: codes and scales, with real-valued operators.
        integer: the same network after lowering.
        specs: what the pixels of each input mean.
        options: choose dialect, input and storage.
        metadata: what the file says of its origin.

    Raises:
        UnsupportedError: a tensor is wider than ONNX can say.
    """
    model = export_model(
        quantized,
        specs,
        str(options.target.value),
        metadata,
        pixels=options.onnx_input is OnnxInput.UINT8,
        int4=options.onnx_weights is OnnxWeights.INT4,
        version=__version__,
    )
    artifacts = Artifacts({f"{options.entry}.onnx": model.content()})
    return EmittedOnnx(
        integer, model, specs, artifacts, model.layer_bytes(), model.constant_bytes()
    )
