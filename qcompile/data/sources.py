"""Everything that a compilation reads besides the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.boundary import InputKind
from qcompile.data.calibration import calibration_feeds
from qcompile.data.evaluation import EvaluationData, load_evaluation, load_pairs
from qcompile.data.folders import ReadingOptions
from qcompile.data.generated import generated_feeds
from qcompile.data.tiling import Tiling, choose_tiling
from qcompile.data_options import DataOptions, parse_slices, parse_window
from qcompile.feeds import Feed, choose_input_kind
from qcompile.graph import Graph
from qcompile.options import CompileOptions
from qcompile.types import Shape


@dataclass(frozen=True)
class Sources:
    """Calibration and evaluation data in the network's shapes.

    Attributes:
        feeds: raw calibration inputs.
        origin: 'data' or 'generated'.
        kind: what the compiled network takes.
        evaluation: None without any.
    """

    feeds: Sequence[Feed]
    origin: str
    kind: InputKind
    evaluation: EvaluationData | None


def reading_options(options: DataOptions, *, whole: bool = False) -> ReadingOptions:
    """How files become images.

    Args:
        options: `window` and `slices` of them.
        whole: for networks that take volumes.
    """
    return ReadingOptions(
        None if options.window is None else parse_window(options.window),
        None if options.slices is None else parse_slices(options.slices),
        whole,
    )


def load_sources(graph: Graph, options: CompileOptions) -> Sources:
    """What the options name, checked as far as that takes no image to be read.

    Raises:
        DataError: data are missing, damaged, or do not fit the network.
        UsageError: large images cannot be cut as asked for.
    """
    shapes = {name: graph.types[name].shape for name in graph.inputs}
    reading = reading_options(options, whole=any(len(shape) == 5 for shape in shapes.values()))
    tiling = choose_tiling(graph, options.tile_halo)
    evaluation = _evaluation(shapes, options, reading, tiling)
    is_float = evaluation is not None and evaluation.floats
    if options.calib is None:
        kind = choose_input_kind(options.input_kind, is_float, "--data or --images")
        feeds = generated_feeds(shapes, options.seed)
        return Sources(feeds, "generated", kind, evaluation)
    feeds = calibration_feeds(options.calib, shapes, options.calib_images, reading, tiling)
    is_float = is_float or any(array.dtype.kind == "f" for feed in feeds for array in feed.values())
    kind = choose_input_kind(options.input_kind, is_float, "--calib")
    return Sources(feeds, "data", kind, evaluation)


def _evaluation(
    shapes: Mapping[str, Shape], options: CompileOptions, reading: ReadingOptions, tiling: Tiling
) -> EvaluationData | None:
    if options.data is not None:
        return load_evaluation(options.data, shapes, options.data_keys, reading, tiling)
    if options.images is not None and options.masks is not None:
        return load_pairs(options.images, options.masks, shapes, reading, tiling)
    return None
