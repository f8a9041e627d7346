"""Pruning in steps with training after each: what `qcompile prune` does."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qcompile import __version__
from qcompile.data import load_sources
from qcompile.errors import DataError, QCompileError, UsageError
from qcompile.exporter import export_float
from qcompile.feeds import float_feed, input_specs
from qcompile.graph import Graph
from qcompile.importance_file import importance_text
from qcompile.importer import import_model
from qcompile.options import CompileOptions, Target
from qcompile.output import write_file, write_files
from qcompile.passes.base import run_passes
from qcompile.passes.prune_costs import PruneCosts
from qcompile.passes.prune_filters import PruneFilters
from qcompile.pipeline import input_shapes, simplify_passes
from qcompile.prune_options import IMPORTANCE_FILE, PruneMethod, parse_amount
from qcompile.prune_sweep import FLOAT, SweepRow, measure
from qcompile.pruning import make_pruner
from qcompile.train.finetune import check_training, finetune
from qcompile.train.importance import model_scores
from qcompile.train.loop import Progress
from qcompile.train.options import TrainOptions
from qcompile.train.taylor_options import TaylorOptions

STATE = "steps.json"
MODEL, PRUNED = "model.onnx", "pruned.onnx"

Train = Callable[[Path, Path], bytes]
"""train(model, folder): the trained network as an ONNX file; `folder` may have its checkpoints."""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How much goes, and how fast.

    Attributes:
        steps: how often a part of it goes, each followed by training.
        ratio: share of the filters that is gone in the end; 0 with `flops`.
        flops: what is left in the end, as `--prune-flops` has it.
        taylor: how scores are computed, with method TAYLOR.
    """

    steps: int = 5
    ratio: float = 0.0
    flops: str | None = None
    taylor: TaylorOptions = field(default_factory=TaylorOptions)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"--steps: {self.steps} is too small; use 1 or more")
        if (self.ratio == 0) == (self.flops is None):
            raise UsageError("prune: give either --prune RATIO or --prune-flops, and not both")
        if not 0 <= self.ratio < 1:
            raise UsageError(f"--prune: {self.ratio:g} is no ratio; use a number below 1")
        if self.flops is not None:
            parse_amount(self.flops, "--prune-flops")

    def amounts(self, flops: int) -> Iterator[dict[str, Any]]:
        """For each step what `CompileOptions` say of the network that the step before left.

        Every step removes about the same number of FLOPs, or of filters.

        Args:
            flops: of the whole network.
        """
        final = None if self.flops is None else parse_amount(self.flops, "--prune-flops").of(flops)
        for step in range(1, self.steps + 1):
            if final is not None:
                left = flops - (flops - final) * step // self.steps
                yield {"prune": 0.0, "prune_flops": str(max(1, left))}
            else:
                before = 1 - self.ratio * (step - 1) / self.steps
                after = 1 - self.ratio * step / self.steps
                yield {"prune": 1 - after / before, "prune_flops": None}


@dataclass(frozen=True)
class Stepwise:
    """A network that is pruned a little and trained, again and again.

    Every step has a folder: its scores, `pruned.onnx`, and `model.onnx` when it is trained. A run
    that was interrupted goes on where it was.

    Attributes:
        model: an ONNX file.
        options: with `data` (to train on), `calib`, and how filters are chosen.
        validation: the same with the data to measure on.
        steps: how much goes.
        folder: where everything is written.
        train: trains a network.
        settings: of the training; a run with others does not go on.
        progress: told about the long stages.
        resume: go on from what is in the folder.
    """

    model: Path
    options: CompileOptions
    validation: CompileOptions
    steps: StepOptions
    folder: Path
    train: Train
    settings: dict[str, Any]
    progress: Progress
    resume: bool = False

    def run(self) -> tuple[SweepRow, ...]:
        """Before the first step, and after each: what is left, and Dice and IoU.

        Raises:
            QCompileError: model, data or options are wrong.
        """
        rows = self._begun() if self.resume else []
        graph = _simplified(self.model, self.options)[1]
        whole = PruneCosts(graph).flops({})
        if not rows:
            self._check(graph)
            rows.append(self._row(self.model, 0.0))
            self._save(rows)
        current = self.model
        for number, amount in enumerate(self.steps.amounts(whole), start=1):
            folder = self.folder / f"step{number}"
            if number >= len(rows):
                current = self._step(current, folder, amount)
                rows.append(self._row(current, rows[0].filters))
                self._save(rows)
            current = folder / MODEL
            self.progress("steps", number, self.steps.steps)
        write_files(self.folder, {MODEL: current.read_bytes()})
        return tuple(rows)

    def _check(self, graph: Graph) -> None:
        """Whether so much can go, whatever matters least.

        Raises:
            UsageError: it cannot, or the options fit no layer.
        """
        options = self.options
        flops = None
        if self.steps.flops is not None:
            flops = parse_amount(self.steps.flops, "--prune-flops")
        PruneFilters(
            self.steps.ratio,
            scope=options.prune_scope,
            multiple=options.prune_multiple,
            exclude=options.prune_exclude,
            flops=flops,
        ).choose(graph)

    def _step(self, model: Path, folder: Path, amount: dict[str, Any]) -> Path:
        pruned = folder / PRUNED
        if not (self.resume and pruned.exists()):
            write_files(folder, self._pruned(model, amount))
        write_files(folder, {MODEL: self.train(pruned, folder)})
        return folder / MODEL

    def _pruned(self, model: Path, amount: dict[str, Any]) -> dict[str, str | bytes]:
        options = dataclasses.replace(self.options, **amount)
        files: dict[str, str | bytes] = {}
        if options.prune_method is PruneMethod.TAYLOR:
            scores = model_scores(
                model,
                options,
                self.steps.taylor,
                lambda done, total: self.progress("importance", done, total),
            )
            files[IMPORTANCE_FILE] = importance_text(scores)
            path = self.folder / IMPORTANCE_FILE
            write_file(path, importance_text(scores))
            options = dataclasses.replace(
                options, prune_method=PruneMethod.FILE, prune_importance=path
            )
        graph = pruned_graph(model, options)
        sha256 = hashlib.sha256(self.model.read_bytes()).hexdigest()
        metadata = {"qcompile": __version__, "model": self.model.name, "sha256": sha256}
        return files | {PRUNED: export_float(graph, metadata, __version__)}

    def _row(self, model: Path, filters: float) -> SweepRow:
        """Of a network in float; its ratio is that of all filters, `filters` before pruning."""
        options = dataclasses.replace(self.validation, target=Target.SIM)
        found = measure((model, options), {"ratio": 0.0, "network": FLOAT})
        if "error" in found:
            raise QCompileError(str(found["error"]))
        dice, iou = tuple(found.pop("dice")), tuple(found.pop("iou"))
        row = SweepRow(**found, dice=dice, iou=iou)
        ratio = 1 - row.filters / filters if filters else 0.0
        return dataclasses.replace(row, ratio=round(ratio, 4))

    def _save(self, rows: Sequence[SweepRow]) -> None:
        state = {"settings": self.settings, "rows": [dataclasses.asdict(row) for row in rows]}
        write_file(self.folder / STATE, json.dumps(state, indent=2) + "\n")

    def _begun(self) -> list[SweepRow]:
        """
        Raises:
            DataError: the file is damaged.
            UsageError: it is of a run with other settings.
        """
        path = self.folder / STATE
        if not path.exists():
            return []
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            rows = [
                SweepRow(**{**row, "dice": tuple(row["dice"]), "iou": tuple(row["iou"])})
                for row in state["rows"]
            ]
            before = dict(state["settings"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: is no state of qcompile prune ({error})") from None
        for name in sorted({*before, *self.settings}):
            if before.get(name) != self.settings.get(name):
                raise UsageError(
                    f"--resume: the run in {self.folder} had {name} {before.get(name)}, now it is "
                    f"{self.settings.get(name)}; repeat the options, or leave out --resume"
                )
        return rows


def pruned_graph(model: Path, options: CompileOptions) -> Graph:
    """A network in float without the filters that the options take away.

    Raises:
        QCompileError: model, data or options are wrong.
    """
    imported, simplified = _simplified(model, options)
    source = load_sources(imported, options)
    specs = input_specs(imported, source.kind, options)
    feeds = source.feeds
    pruner = make_pruner(
        options, model, imported, simplified, lambda: [float_feed(feed, specs) for feed in feeds]
    )
    return run_passes(simplified, pruner.passes(simplified))


def _simplified(model: Path, options: CompileOptions) -> tuple[Graph, Graph]:
    """As imported, and simplified."""
    imported = import_model(model, input_shapes(model, options))
    return imported, run_passes(imported, simplify_passes(options))


def prune_and_train(
    model: Path,
    options: CompileOptions,
    validation: CompileOptions | None,
    steps: StepOptions,
    train: TrainOptions,
    folder: Path,
    progress: Progress,
) -> tuple[SweepRow, ...]:
    """`Stepwise` with the training of `qcompile finetune`, in float.

    Args:
        model: an ONNX file.
        options: formats are float; `data` and `calib` are of the training data.
        validation: the options with the validation data.
        steps: how much goes.
        train: of the training after each step.
        folder: where everything is written.
        progress: told about the long stages.

    Raises:
        QCompileError: model, data or options are wrong.
    """
    if validation is None:
        raise UsageError("prune: needs images to measure on: val_x and val_y in --data, or --val")
    plain = dataclasses.replace(
        options, prune=0.0, prune_flops=None, prune_method=PruneMethod.AUTO, prune_refit=None
    )

    check_training(model, plain, train, validation)

    def trained(pruned: Path, place: Path) -> bytes:
        found = finetune(pruned, plain, train, place, validation, progress)
        content = found.files.pop(MODEL)
        write_files(place, found.files)
        assert isinstance(content, bytes)
        return content

    settings = {
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        **train.settings(),
        **{f"--{name}": value for name, value in dataclasses.asdict(steps).items()},
        "--prune-method": options.prune_method.value,
        "--prune-refit": options.prune_refit,
    }
    settings = json.loads(json.dumps(settings, default=lambda value: value.value))
    run = Stepwise(
        model, options, validation, steps, folder, trained, settings, progress, train.resume
    )
    return run.run()
