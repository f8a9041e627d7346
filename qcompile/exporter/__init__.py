"""The exporter: a quantized graph as an ONNX model that other tools run and build hardware from, or
a float graph as it is."""

from __future__ import annotations

from qcompile.exporter.model import ExportedModel, export_float, export_model

__all__ = ["ExportedModel", "export_float", "export_model"]
