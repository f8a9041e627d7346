"""What trains the members of an ensemble: small U-Nets in floats, or a given network as it will be
compiled."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcompile.data.evaluation import EvaluationData
from qcompile.errors import DataError, UsageError
from qcompile.options import CompileOptions
from qcompile.train.ensemble import Progress, Task, Trained, Trainer
from qcompile.train.finetune import finetune
from qcompile.train.float_network import UNet, export_onnx, train_float
from qcompile.train.options import class_weights
from qcompile.train.samples import Samples
from qcompile.types import Shape


@dataclass(frozen=True)
class UNetTrainer:
    """Trains a `UNet` in floats.

    Attributes:
        samples: all images.
        classes: background included; 2 are told apart by one logit.
        base: channels of the first level.
        depth: how often the size is halved.
        device: where to train, 'cpu' or 'cuda'.
        validation: chooses the epoch; None: see `left_out`.
        left_out: whether the images that were not drawn choose it; else the last epoch is taken.
    """

    samples: Samples
    classes: int
    base: int = 8
    depth: int = 4
    device: str = "cpu"
    validation: Samples | None = None
    left_out: bool = True

    def __post_init__(self) -> None:
        check_size(self.shape, self.base, self.depth)

    @property
    def shape(self) -> Shape:
        """Of the network's input."""
        (shape,) = self.samples.shapes.values()
        return shape

    def __call__(self, task: Task) -> Trained:
        judged = self.validation
        if judged is None and self.left_out and task.left_out:
            judged = self.samples.subset(task.left_out)
        drawn = self.samples.subset(task.drawn)
        weights = class_weights(task.options.class_weights, drawn.class_counts(self.classes))
        logits = 1 if self.classes == 2 else self.classes
        seed = task.options.seed
        module = UNet(self.shape[1], logits, self.base, self.depth, seed).to(self.device)
        epochs = train_float(module, drawn, judged, task.options, None, weights)
        best = max((item.dice for item in epochs if item.dice is not None), default=None)
        return Trained(export_onnx(module, self.shape), None, best, tuple(epochs))


def check_size(shape: Shape, base: int, depth: int) -> None:
    """
    Raises:
        UsageError: there is no U-Net of this size.
    """
    if not (1 <= base <= 1024 and 1 <= depth <= 8):
        raise UsageError(f"--base {base} --depth {depth}: use 1 to 1024 channels, 1 to 8 levels")
    step = 1 << depth
    if any(size % step for size in shape[2:]):
        sizes = "x".join(map(str, shape[2:]))
        raise UsageError(
            f"images of {sizes} pixels cannot be halved {depth} times; use --size with multiples "
            f"of {step}, or a smaller --depth"
        )


@dataclass(frozen=True)
class FormatTrainer:
    """Trains a float network with the integer formats of its weights and activations (`finetune`).

    Attributes:
        start: an ONNX file; or what trains the float network first, on the same sample.
        data: all images.
        options: formats; `data`, `calib` and the like are replaced.
        validation: the options with validation data; None: the images that were not drawn.
        epochs: of this training.
        keeps_plan: whether the formats are kept; else the result is a float network.
        progress: told about the long stages.
    """

    start: Path | Trainer
    data: EvaluationData
    options: CompileOptions
    validation: CompileOptions | None
    epochs: int
    keeps_plan: bool
    progress: Progress

    def __call__(self, task: Task) -> Trained:
        with tempfile.TemporaryDirectory(prefix="qcompile-") as name:
            folder = Path(name)
            model = self.start
            if not isinstance(model, Path):
                begun = model(task)
                model = folder / "float.onnx"
                model.write_bytes(begun.model)
            drawn = self._options(folder / "drawn.npz", task.drawn)
            judged = self.validation
            if judged is None and task.left_out:
                judged = dataclasses.replace(
                    self._options(folder / "left-out.npz", task.left_out), calib=None
                )
            train = dataclasses.replace(task.options, epochs=self.epochs)
            task.folder.mkdir(parents=True, exist_ok=True)
            found = finetune(model, drawn, train, task.folder, judged, self.progress)
        content, plan = found.files["model.onnx"], found.files["plan.toml"]
        assert isinstance(content, bytes)
        assert isinstance(plan, str)
        return Trained(content, plan if self.keeps_plan else None, found.dice, found.epochs)

    def _options(self, path: Path, indices: Sequence[int]) -> CompileOptions:
        """Those of training on some of the images, which are written to `path`."""
        images = [next(iter(self.data.images[index].values())) for index in indices]
        labels = [self.data.labels[index] for index in indices]
        if len({image.shape for image in images}) > 1:
            raise DataError(
                "the images have different sizes; training with formats takes images of one size"
            )
        np.savez(path, x=np.stack(images), y=np.stack(labels))
        return dataclasses.replace(
            self.options,
            data=str(path),
            data_keys=("x", "y"),
            images=None,
            masks=None,
            calib=f"{path}:x",
        )
