"""An ensemble from files: what `qcompile ensemble` does."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from qcompile.boundary import InputKind, InputSpec
from qcompile.data import load_evaluation, load_pairs, load_sources, read_calibration
from qcompile.data.evaluation import EvaluationData
from qcompile.data.masks import class_rule
from qcompile.data.sources import reading_options
from qcompile.data.tiling import Tiling
from qcompile.data_options import MaskValues
from qcompile.errors import UsageError
from qcompile.feeds import choose_input_kind
from qcompile.importer import import_model
from qcompile.options import CompileOptions
from qcompile.pipeline import input_shapes
from qcompile.plan_file import options_table
from qcompile.train.device import torch_device
from qcompile.train.ensemble import Progress, Trainer, digest, train_ensemble
from qcompile.train.ensemble_trainers import FormatTrainer, UNetTrainer, check_size
from qcompile.train.float_network import INPUT
from qcompile.train.options import TrainOptions
from qcompile.train.samples import Samples
from qcompile.types import Shape

ANY_SIZE = Tiling((0, 0), (1, 1))
"""Pieces of any image, and small ones lengthened."""
MOST_CLASSES = 64


@dataclass(frozen=True, slots=True)
class EnsembleOptions:
    """
    Attributes:
        members: networks.
        base: channels of a U-Net's first level.
        depth: how often it halves the size.
        size: of its input, (H, W); None: the first image's.
        format_epochs: of the training with formats.
        quantised: whether there is one.
    """

    members: int
    base: int
    depth: int
    size: tuple[int, int] | None
    format_epochs: int
    quantised: bool


def parse_size(text: str) -> tuple[int, int]:
    """'256,192' as height and width.

    Raises:
        UsageError: the text has another form.
    """
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--size: '{text}' is no size; write height and width, such as 256,192")
    return int(parts[0]), int(parts[1])


def run_ensemble(
    folder: Path,
    model: Path | None,
    training: CompileOptions,
    validation: CompileOptions | None,
    train: TrainOptions,
    chosen: EnsembleOptions,
    progress: Progress,
) -> None:
    """Trains and writes an ensemble.

    Args:
        folder: where it goes.
        model: a network to start from; None: U-Nets that start at random.
        training: formats, and the training data.
        validation: the same with validation data; None: the images that a network did not draw.
        train: of each run.
        chosen: of the ensemble.
        progress: told about the long stages.

    Raises:
        QCompileError: model, data or options are wrong.
    """
    device = str(torch_device(train.device))
    if model is not None:
        imported = import_model(model, input_shapes(model, training))
        data = load_sources(imported, training).evaluation
        start: Path | Trainer = model
        origin = hashlib.sha256(model.read_bytes()).hexdigest()
    else:
        shape = _shape(training, chosen)
        data = _evaluation(training, shape)
        start = _unets(data, shape, training, validation, chosen, device)
        origin = f"U-Net {chosen.base} {chosen.depth} {list(shape)}"
    assert data is not None
    trainer = start
    if chosen.quantised or isinstance(trainer, Path):
        epochs = chosen.format_epochs if chosen.quantised else train.epochs
        trainer = FormatTrainer(
            start, data, training, validation, epochs, chosen.quantised, progress
        )
    settings = {
        "network": origin,
        "--format-epochs": chosen.format_epochs if chosen.quantised else None,
        "validation": None if validation is None else _data_digest(validation),
        "data": digest(
            [array for feed in data.images for array in feed.values()] + list(data.labels)
        ),
        **{f"option {name}": json.dumps(value) for name, value in options_table(training).items()},
        "layers of --config": json.dumps(
            [str(item) for item in (*training.layers, *training.inputs)]
        ),
    }
    train_ensemble(folder, chosen.members, len(data.labels), train, trainer, settings, progress)


def _data_digest(options: CompileOptions) -> str:
    """Of a file of arrays; of folders their names."""
    if options.data is None:
        return f"{options.images} {options.masks}"
    return hashlib.sha256(Path(options.data).read_bytes()).hexdigest() + str(options.data_keys)


def _shape(options: CompileOptions, chosen: EnsembleOptions) -> Shape:
    """Of the U-Nets' input, [1, C, H, W]."""
    assert options.calib is not None
    ((_, items),) = read_calibration(options.calib, {INPUT: 3}, reading_options(options)).items()
    shape = items[0].shape
    if len(shape) == 2:
        count, size = 1, shape
    elif len(shape) == 3:
        first = shape[0] < shape[2]
        count, size = (shape[0], shape[1:]) if first else (shape[2], shape[:2])
    else:
        raise UsageError(f"images of shape {list(shape)}: U-Nets take 2-D images; give --model")
    result = (1, count, *(chosen.size or size))
    check_size(result, chosen.base, chosen.depth)
    return result


def _evaluation(options: CompileOptions, shape: Shape) -> EvaluationData:
    shapes, reading = {INPUT: shape}, reading_options(options)
    if options.data is not None:
        return load_evaluation(options.data, shapes, options.data_keys, reading, ANY_SIZE)
    if options.images is None or options.masks is None:
        raise UsageError("--data: give images and labels to train on, such as --data train.npz")
    return load_pairs(options.images, options.masks, shapes, reading, ANY_SIZE)


def _unets(
    data: EvaluationData,
    shape: Shape,
    training: CompileOptions,
    validation: CompileOptions | None,
    chosen: EnsembleOptions,
    device: str,
) -> UNetTrainer:
    judged = None if validation is None else _evaluation(validation, shape)
    values = data.survey.values | (frozenset() if judged is None else judged.survey.values)
    classes = _classes(values, training.mask_values)
    rule = class_rule(values, training.mask_values, classes)
    kind = choose_input_kind(training.input_kind, data.floats, "--data")
    specs = {INPUT: InputSpec(kind, training.input_scale, training.input_mean, training.input_std)}
    if kind is InputKind.FLOAT32 and judged is not None and not judged.floats:
        raise UsageError("--val: has pixels where --data has floats; give both alike")
    sets = [
        None if part is None else Samples.of(part, {INPUT: shape}, specs, rule)
        for part in (data, judged)
    ]
    assert sets[0] is not None
    return UNetTrainer(sets[0], classes, chosen.base, chosen.depth, device, sets[1])


def _classes(values: frozenset[int], meaning: MaskValues) -> int:
    """Background included.

    Raises:
        UsageError: the masks have no small class indices.
    """
    if meaning in (MaskValues.BINARY, MaskValues.INSTANCES):
        return 2
    if meaning is MaskValues.AUTO and values <= {0, 255}:
        return 2
    highest = max(values, default=0)
    if highest >= MOST_CLASSES:
        raise UsageError(
            f"the masks have class {highest}; an ensemble tells at most {MOST_CLASSES} classes "
            f"apart, see --mask-values"
        )
    return max(2, highest + 1)
