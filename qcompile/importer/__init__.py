"""ONNX in, `Graph` out: the only package (with the exporter) that knows ONNX."""

from __future__ import annotations

from qcompile.importer.model import declared_shapes, import_model

__all__ = ["declared_shapes", "import_model"]
