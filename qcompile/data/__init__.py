"""Calibration and evaluation data: files become network inputs of exactly the right shape.

Everything here keeps the *raw* elements (uint8 pixels or float32); `feeds.py` turns them into what
the float graph and the compiled graph take. Images are read when they are needed.
"""

from __future__ import annotations

from qcompile.data.calibration import calibration_feeds, read_calibration
from qcompile.data.evaluation import EvaluationData, load_evaluation, load_pairs
from qcompile.data.fitting import shape_from_images
from qcompile.data.folders import ReadingOptions
from qcompile.data.generated import generated_feeds, random_feeds
from qcompile.data.sources import Sources, load_sources, reading_options
from qcompile.data.tiling import Tiling, choose_tiling

__all__ = [
    "EvaluationData",
    "ReadingOptions",
    "Sources",
    "Tiling",
    "calibration_feeds",
    "choose_tiling",
    "generated_feeds",
    "load_evaluation",
    "load_pairs",
    "load_sources",
    "random_feeds",
    "read_calibration",
    "reading_options",
    "shape_from_images",
]
