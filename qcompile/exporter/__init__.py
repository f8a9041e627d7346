"""The exporter: a quantized graph as an ONNX model that other tools run and build hardware from."""

from __future__ import annotations

from qcompile.exporter.model import ExportedModel, export_model

__all__ = ["ExportedModel", "export_model"]
