"""Fine-tuning of a float network as it will be compiled: what `qcompile finetune` does."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from qcompile import __version__
from qcompile.boundary import InputSpec
from qcompile.data import Sources, load_sources
from qcompile.data.evaluation import EvaluationData
from qcompile.data.item import Lazy
from qcompile.data.masks import class_rule
from qcompile.errors import DataError, UsageError
from qcompile.evaluate import Judging
from qcompile.feeds import Feed, input_specs
from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.options import CompileOptions, InputChoice
from qcompile.passes.base import run_passes
from qcompile.pipeline import input_shapes, simplify_passes
from qcompile.plan_file import options_table
from qcompile.quantization import resolved_effort
from qcompile.train.curves import Epoch, curves_svg
from qcompile.train.device import torch_device
from qcompile.train.graph_module import GraphModule
from qcompile.train.loop import Progress, Training
from qcompile.train.losses import Target, target_of
from qcompile.train.model_file import model_files
from qcompile.train.options import TrainOptions, class_weights
from qcompile.train.samples import Samples
from qcompile.train.start import start_training
from qcompile.train.validation import Validation

logger = logging.getLogger("qcompile")

CHECKPOINT = "checkpoint.pt"
SPLIT_EVERY = 5
"""Without validation data every fifth case is taken from the training data."""


@dataclass(frozen=True)
class Finetuned:
    """What came out of a run.

    Attributes:
        files: relative path -> content.
        epochs: what happened.
        best: the epoch that is kept; 0 is the network before the training.
        dice_float: of the float network on the validation images.
        dice_start: of the compiled network before the training.
        dice: of the compiled network that is kept.
        images: how many trained, and how many validated.
    """

    files: dict[str, str | bytes]
    epochs: tuple[Epoch, ...]
    best: int
    dice_float: float
    dice_start: float
    dice: float
    images: tuple[int, int]


def finetune(
    model: Path,
    options: CompileOptions,
    train: TrainOptions,
    folder: Path,
    validation: CompileOptions | None,
    progress: Progress,
) -> Finetuned:
    """Trains a network with its formats, and chooses the epoch by Dice of the compiled network.

    Args:
        model: an ONNX file.
        options: formats, the training data (`data`, or `images` and `masks`) and `calib`, which is
            of the training data.
        train: of the run.
        folder: where checkpoints go.
        validation: the options with the validation data in place of the training data; None splits
            the training data.
        progress: told about the long stages.

    Raises:
        QCompileError: model, data or options are wrong.
    """
    begun = _start(model, options, train, validation)
    options, graph, target = begun.options, begun.graph, begun.target
    samples, judged = begun.samples, begun.judged
    network = start_training(
        graph,
        begun.specs,
        options,
        begun.feeds,
        train.learned_scales,
        lambda done, total: progress("quantize", done, total),
        train.portions is not None,
    )
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    metadata = {"qcompile": __version__, "model": model.name, "sha256": sha256}
    model_files(network, metadata)  # what cannot be written is not worth the training
    folder.mkdir(parents=True, exist_ok=True)
    run = Training(
        network,
        GraphModule(graph) if train.loss.distillation else None,
        target,
        samples,
        Validation(
            graph,
            judged,
            begun.specs,
            Judging.of(options),
            options.workers or None,
            begun.device,
        ),
        train,
        dataclasses.replace(train.loss, weights=begun.weights),
        folder / CHECKPOINT,
        _settings(sha256, options, train, len(samples.labels)),
        progress,
    )
    logger.info("%d images to train on, %d to validate", len(samples.labels), len(judged.labels))
    run.run()
    known, dice = run.validation.known, run.dice_of(run.best)
    if known is None or dice is None:  # a run that was over when it was resumed, for instance
        known = run.validation.dice(network.lowered().integer)
        dice = known.dice_quantized
    files = model_files(network, metadata)
    start = run.dice_of(0)
    assert start is not None
    return Finetuned(
        {
            "model.onnx": files.model,
            "plan.toml": files.plan_text(f"Model: {model.name}, fine-tuned"),
            "curves.svg": curves_svg(run.epochs, known.dice_float, run.best),
            "history.json": _history(run, known.dice_float),
        },
        tuple(run.epochs),
        run.best,
        known.dice_float,
        start,
        dice,
        (len(samples.labels), len(judged.labels)),
    )


@dataclass(frozen=True)
class _Start:
    """The network and all images, read and checked.

    Attributes:
        options: as resolved.
        feeds: calibration images.
        weights: of the classes in the loss.
    """

    options: CompileOptions
    graph: Graph
    specs: Mapping[str, InputSpec]
    target: Target
    feeds: Sequence[Feed]
    samples: Samples
    judged: EvaluationData
    weights: tuple[float, ...] | None
    device: torch.device


def check_training(
    model: Path, options: CompileOptions, train: TrainOptions, validation: CompileOptions | None
) -> None:
    """Finds what is wrong with model, data or options before anything is computed or written.

    Args:
        model: an ONNX file.
        options: see `finetune`.
        train: see `finetune`.
        validation: see `finetune`.

    Raises:
        QCompileError: something is.
    """
    _start(model, options, train, validation)


def _start(
    model: Path, options: CompileOptions, train: TrainOptions, validation: CompileOptions | None
) -> _Start:
    device = torch_device(train.device)
    imported = import_model(model, input_shapes(model, options))
    source = load_sources(imported, options)
    if source.evaluation is None:
        raise UsageError("needs --data (or --images and --masks) to train on")
    options = dataclasses.replace(
        options,
        input_kind=InputChoice(source.kind.value),
        input_shapes={name: imported.types[name].shape for name in imported.inputs},
        effort=resolved_effort(options, imported, source.origin == "data"),
    )
    specs = input_specs(imported, source.kind, options)
    graph = run_passes(imported, simplify_passes(options))
    target = target_of(graph, options.metric_threshold)
    training, judged = _sets(imported, source, options, validation)
    shapes = {name: graph.types[name].shape for name in graph.inputs}
    values = training.survey.values | judged.survey.values
    rule = class_rule(values, options.mask_values, target.classes)
    samples = Samples.of(training, shapes, specs, rule, device)
    weights = class_weights(train.class_weights, samples.class_counts(target.classes))
    return _Start(options, graph, specs, target, source.feeds, samples, judged, weights, device)


def _sets(
    graph: Graph, source: Sources, options: CompileOptions, validation: CompileOptions | None
) -> tuple[EvaluationData, EvaluationData]:
    """Training and validation images."""
    assert source.evaluation is not None
    if validation is not None:
        again = dataclasses.replace(validation, input_kind=options.input_kind)
        judged = load_sources(graph, again).evaluation
        assert judged is not None
        return source.evaluation, judged
    data = source.evaluation
    count = len(data.labels)
    names = data.cases or tuple(map(str, range(count)))
    cases = list(dict.fromkeys(names))
    held = set(cases[SPLIT_EVERY - 1 :: SPLIT_EVERY])
    if not held:
        raise DataError(
            f"the training data have {len(cases)} images or cases, too few to keep some for "
            f"validation; give --val"
        )
    kept = [index for index in range(count) if names[index] not in held]
    others = [index for index in range(count) if names[index] in held]
    return _subset(data, kept), _subset(data, others)


def _subset(data: EvaluationData, chosen: Sequence[int]) -> EvaluationData:
    return EvaluationData(
        Lazy(len(chosen), lambda at: data.images[chosen[at]]),
        Lazy(len(chosen), lambda at: data.labels[chosen[at]]),
        tuple(data.cases[index] for index in chosen) if data.cases else (),
        data.is_float,
        data.tiling,
    )


def _settings(
    sha256: str, options: CompileOptions, train: TrainOptions, images: int
) -> dict[str, str | int | float | bool]:
    """What a run that goes on must have in common with the one before."""
    formats = {
        f"--{name.replace('_', '-')}": json.dumps(value)
        for name, value in options_table(options).items()
    }
    layers = json.dumps([str(item) for item in (*options.layers, *options.inputs)])
    return {
        "model": sha256,
        "training images": images,
        "layers of --config": layers,
        **formats,
        **train.settings(),
    }


def _history(run: Training, dice_float: float) -> str:
    document = {
        "best_epoch": run.best,
        "dice_float": dice_float,
        "settings": dict(run.settings),
        "epochs": [dataclasses.asdict(item) for item in run.epochs],
    }
    return json.dumps(document, indent=2) + "\n"
