"""ONNX in, `Graph` out: the only package (with the exporter) that knows ONNX."""

from __future__ import annotations

from qcompile.importer.model import import_model

__all__ = ["import_model"]
