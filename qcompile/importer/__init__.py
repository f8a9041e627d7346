"""ONNX in, `Graph` out: the only package (with the exporter) that knows ONNX."""

from __future__ import annotations

from qcompile.importer.batch_norms import batch_norm_scales
from qcompile.importer.model import declared_shapes, import_model

__all__ = ["batch_norm_scales", "declared_shapes", "import_model"]
