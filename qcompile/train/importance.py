"""Taylor scores of an ONNX model on images, by node: what `--prune-importance` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qcompile.boundary import InputSpec
from qcompile.data import load_sources
from qcompile.data.evaluation import EvaluationData
from qcompile.data.masks import class_rule
from qcompile.errors import UsageError
from qcompile.feeds import Feed, float_feed, input_specs
from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.options import CompileOptions
from qcompile.passes.base import run_passes
from qcompile.pipeline import input_shapes, simplify_passes
from qcompile.train.augment import Augment
from qcompile.train.losses import Loss, Target, target_of
from qcompile.train.samples import Samples
from qcompile.train.sources import training_options
from qcompile.train.taylor import Losses, TaylorScores
from qcompile.train.taylor_options import TaylorOf, TaylorOptions
from qcompile.types import Array

Progress = Callable[[int, int], None]
"""Called with (done, total) images."""
Batch = tuple[Mapping[str, Tensor], Tensor | None]


def model_scores(
    model: Path,
    options: CompileOptions,
    taylor: TaylorOptions,
    progress: Progress | None = None,
) -> dict[str, Array]:
    """ONNX node -> float64 [C], the Taylor scores of its filters, on CUDA where there is some.

    Args:
        model: an ONNX file.
        options: `calib` are the images, at most `calib_images` of them; without it, and for
            gradients of the loss, those of `data` (or `images`) that a network is trained on.
        taylor: how scores are computed.
        progress: told of images.

    Raises:
        QCompileError: model, data or options are wrong.
    """
    if options.calib is None or taylor.of is TaylorOf.LOSS:
        if not options.has_evaluation:
            wanted = "labels: give --data" if taylor.of is TaylorOf.LOSS else "images: give --calib"
            raise UsageError(f"Taylor scores need {wanted}")
        options, _ = training_options(options, None)
    imported = import_model(model, input_shapes(model, options))
    source = load_sources(imported, options)
    specs = input_specs(imported, source.kind, options)
    # Norms belong to the filters before them, whatever becomes of their weights later on.
    plain = CompileOptions(
        output_kind=options.output_kind, metric_threshold=options.metric_threshold
    )
    graph = run_passes(imported, simplify_passes(plain))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if taylor.of is TaylorOf.LOSS:
        assert source.evaluation is not None
        target = target_of(graph, options.metric_threshold)
        count = options.calib_images
        total = min(count, len(source.evaluation.labels))
        batches = _labelled(graph, source.evaluation, specs, options, target, taylor, count)
        scores = TaylorScores(graph, taylor, (target.value, _losses(target)), device)
    else:
        total = len(source.feeds)
        batches = _unlabelled(source.feeds, specs, taylor.batch)
        scores = TaylorScores(graph, taylor, None, device)
    for inputs, labels in batches:
        scores.add(inputs, labels)
        if progress is not None:
            progress(scores.images, total)
    return scores.scores()


def _unlabelled(
    feeds: Sequence[Feed], specs: Mapping[str, InputSpec], size: int
) -> Iterator[Batch]:
    for begin in range(0, len(feeds), size):
        images = [float_feed(feed, specs) for feed in feeds[begin : begin + size]]
        yield (
            {
                name: torch.from_numpy(np.concatenate([image[name] for image in images]))
                for name in images[0]
            },
            None,
        )


def _labelled(
    graph: Graph,
    data: EvaluationData,
    specs: Mapping[str, InputSpec],
    options: CompileOptions,
    target: Target,
    taylor: TaylorOptions,
    count: int,
) -> Iterator[Batch]:
    """At most `count` pieces of the network's size, at random."""
    shapes = {name: graph.types[name].shape for name in graph.inputs}
    rule = class_rule(data.survey.values, options.mask_values, target.classes)
    samples = Samples.of(data, shapes, specs, rule)
    generator = torch.Generator().manual_seed(options.seed)
    left = count
    for batch in samples.batches(taylor.batch, Augment(frozenset()), generator):
        inputs = {name: data[:left] for name, data in batch.inputs.items()}
        yield inputs, batch.labels[:left]
        left -= len(batch.labels)
        if left <= 0:
            return


def _losses(target: Target) -> Losses:
    """Each image for itself: soft Dice is that of all pixels it is given."""
    loss = Loss()

    def summed(values: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        logits = target.logits(dict(values))
        each = [loss(logits[at : at + 1], labels[at : at + 1]) for at in range(len(labels))]
        return torch.stack(each).sum()

    return summed
