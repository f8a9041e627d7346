"""Taylor pruning of a segmentation network, end to end: scores, pruning, fine-tuning, 4/6 bits, C.

    python examples/taylor_pruning/prune_polyps.py --data cvc_clinicdb.npz \\
        --model cvc_resunet.onnx --out results

One network is pruned to several shares of its FLOPs by every way to score filters, some of the
results are trained for the same number of epochs, and networks are compiled to integers in C and
timed side by side. Tables are in OUT/results.md and OUT/results.json, written anew after each cell;
a run that was interrupted goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pruned_cells import FULL, QUICK, WHOLE, Cell, Settings
from pruned_tables import tables

from qcompile import __version__
from qcompile.data import load_sources
from qcompile.data.arrays import open_arrays
from qcompile.errors import QCompileError, UsageError
from qcompile.evaluate import Evaluation, Judging, evaluate
from qcompile.exporter import export_float
from qcompile.feeds import float_feed, input_specs
from qcompile.graph import Graph
from qcompile.importance_file import importance_text
from qcompile.importer import import_model
from qcompile.options import CompileOptions
from qcompile.output import write_file, write_files
from qcompile.passes.base import run_passes
from qcompile.passes.prune_costs import PruneCosts
from qcompile.pipeline import compile_model, simplify_passes
from qcompile.prune_options import PruneMethod
from qcompile.pruning import make_pruner, parameter_count
from qcompile.train.finetune import finetune
from qcompile.train.graph_module import GraphModule
from qcompile.train.importance import model_scores
from qcompile.train.options import TrainOptions
from qcompile.train.sources import training_options
from qcompile.types import Array

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "folders.py"
PRUNED = "pruned.onnx"
RATE = 1e-4
"""Of the training, which is too short for a higher one to mend what it breaks first."""
CALIBRATION = 32
"""Images that scales and integer weights are chosen on."""


@dataclass
class Study:
    """All that is measured, and what is known already.

    Attributes:
        model: the whole network.
        settings: how much is done.
        training: options with the training images.
        validation: the same with the images that are measured on.
        folder: of the results.
        device: of torch.
        found: name of a stage -> key of a network -> what was measured.
    """

    model: Path
    settings: Settings
    training: CompileOptions
    validation: CompileOptions
    folder: Path
    device: torch.device
    found: dict[str, dict[str, Any]]

    def __post_init__(self) -> None:
        self.imported = import_model(self.model, {})
        self.graph = run_passes(self.imported, simplify_passes(self.training))
        self.sources = load_sources(self.imported, self.training)
        self.specs = input_specs(self.imported, self.sources.kind, self.training)
        judged = load_sources(self.imported, self.validation).evaluation
        assert judged is not None
        self.judged = judged
        self.before: Evaluation | None = None

    def run(self) -> None:
        """Everything that is not known yet."""
        settings = self.settings
        for cell in dict.fromkeys((WHOLE, *settings.cells, *settings.tuned, *settings.compiled)):
            self._once("pruned", cell.key, functools.partial(self._judged, cell))
        for cell, seed in settings.runs:
            key = f"{cell.key}-seed{seed}"
            self._once("tuned", key, functools.partial(self._tuned, cell, seed))
        compiled = (WHOLE, *settings.compiled)
        for cell in compiled:
            self._once("compiled", cell.key, functools.partial(self._compiled, cell))
        if shutil.which("gcc") is None:
            print("gcc is not installed: nothing is timed")
            return
        self._once("timed", "all", lambda: self._timed(compiled))

    def _once(self, stage: str, key: str, compute: Callable[[], dict[str, Any]]) -> None:
        known = self.found.setdefault(stage, {})
        if key in known:
            return
        known[key] = compute()
        print(stage, key, json.dumps(known[key]), flush=True)
        self.save()

    def save(self) -> None:
        """Writes what is known."""
        write_files(
            self.folder,
            {
                "results.json": json.dumps(self.found, indent=1) + "\n",
                "results.md": "\n".join(tables(self.settings, self.found)),
            },
        )

    def pruned(self, cell: Cell) -> Graph:
        """The network without the filters that matter least."""
        if cell == WHOLE:
            return self.graph
        options = dataclasses.replace(
            self.training,
            prune_flops=f"{cell.share}%",
            prune_method=cell.method.method,
            prune_scope=cell.method.scope,
            prune_refit=cell.refit,
        )
        if cell.method.taylor is not None:
            path = self.folder / "scores" / f"{cell.method.name.replace(' ', '-')}.json"
            if not path.exists():
                scores = model_scores(self.model, self.training, cell.method.taylor)
                write_file(path, importance_text(scores))
            options = dataclasses.replace(
                options, prune_method=PruneMethod.FILE, prune_importance=path
            )
        pruner = make_pruner(
            options,
            self.model,
            self.imported,
            self.graph,
            lambda: [float_feed(feed, self.specs) for feed in self.sources.feeds],
        )
        return run_passes(self.graph, pruner.passes(self.graph))

    def _judged(self, cell: Cell) -> dict[str, Any]:
        return self._measured(self.pruned(cell))

    def _measured(self, graph: Graph) -> dict[str, Any]:
        """Size, Dice and IoU of a network in float, without training."""
        found = evaluate(
            self.graph,
            graph,
            self.judged,
            self.specs,
            Judging.of(self.validation),
            known=self.before,
            simulate=self._computed,
        )
        self.before = self.before or found
        scores = found.quantized_scores
        return {
            "parameters": parameter_count(graph),
            "flops": PruneCosts(graph).flops({}),
            "dice": found.dice_quantized,
            "iou": float(np.mean([score.iou_mean for score in scores])),
        }

    def _computed(
        self,
        graph: Graph,
        feeds: Iterable[Mapping[str, Array]],
        reduce: Callable[[dict[str, Array]], Array],
        workers: int | None = None,
        progress: Callable[[], None] | None = None,
    ) -> Iterator[Array]:
        """A float graph on many inputs, by torch."""
        module = GraphModule(graph).to(self.device)
        for feed in feeds:
            inputs = {name: torch.from_numpy(data).to(self.device) for name, data in feed.items()}
            with torch.no_grad():
                values = module(inputs)
            yield reduce({name: data.cpu().numpy() for name, data in values.items()})
            if progress is not None:
                progress()

    def _trained(self, cell: Cell, seed: int) -> Path:
        return self.folder / "networks" / f"{cell.key}-seed{seed}"

    def _written(self, cell: Cell, folder: Path) -> Path:
        """The pruned network as a file."""
        metadata = {"qcompile": __version__, "model": self.model.name}
        write_files(folder, {PRUNED: export_float(self.pruned(cell), metadata, __version__)})
        return folder / PRUNED

    def _tuned(self, cell: Cell, seed: int) -> dict[str, Any]:
        """The same number of epochs for all; what is kept is the last one, or the start if that was
        better."""
        folder = self._trained(cell, seed)
        pruned = self._written(cell, folder)
        train = TrainOptions(
            self.settings.epochs,
            learning_rate=RATE,
            patience=0,
            validate_every=self.settings.epochs,
            device=self.device.type,
            resume=True,
            seed=seed,
        )
        done = finetune(
            pruned,
            self.training,
            train,
            folder,
            self.validation,
            lambda stage, done, total: None,
        )
        write_files(folder, done.files)
        graph = run_passes(import_model(folder / "model.onnx", {}), simplify_passes(self.training))
        return {
            **self._measured(graph),
            "kept": done.best,
            "last": done.epochs[-1].dice,
        }

    def _compiled(self, cell: Cell) -> dict[str, Any]:
        """As integers in C, which must have the simulator's bits."""
        model = self.model
        if cell in self.settings.tuned and cell != WHOLE:
            model = self._trained(cell, self.settings.seeds[0]) / "model.onnx"
        elif cell != WHOLE:
            model = self._written(cell, self.folder / "networks" / cell.key)
        options = dataclasses.replace(
            self.validation,
            wbits=self.settings.wbits,
            abits=self.settings.abits,
            calib=self.training.calib,
            calib_images=CALIBRATION,
            verify=shutil.which("gcc") is not None,
        )
        result = compile_model(model, options)
        result.write(self.folder / "compiled" / cell.key)
        totals = result.report.totals
        return {
            "verified": result.verified,
            "dice_float": totals.dice_float,
            "dice": totals.dice_quantized,
            "nominal": totals.weight_bytes_nominal,
            "emitted": totals.weight_bytes_emitted,
            "arena": totals.arena_bytes,
        }

    def _timed(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Seconds of one image on one core, all programs in turns."""
        path = self.folder / "times.json"
        folders = [str(self.folder / "compiled" / cell.key) for cell in cells]
        subprocess.run([sys.executable, str(BENCHMARK), *folders, "--json", str(path)], check=True)
        found = json.loads(path.read_text(encoding="utf-8"))
        return {cell.key: item["median"] for cell, item in zip(cells, found, strict=True)}


def subset_of(data: Path, counts: tuple[int, int], path: Path) -> Path:
    """A file with some training and some validation images, evenly over all."""
    arrays = open_arrays(data)
    chosen = {}
    for part, count in zip(("train", "val"), counts, strict=True):
        for name in (f"{part}_x", f"{part}_y"):
            array = arrays.read(name)
            places = np.linspace(0, len(array) - 1, min(count, len(array))).astype(int)
            chosen[name] = array[places]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **chosen)
    return path


def study(options: argparse.Namespace) -> Study:
    """What the command line asks for, with what an earlier run left in the folder.

    Raises:
        QCompileError: model or data are wrong, or the folder is of another run.
    """
    settings = QUICK if options.quick else FULL
    data, folder = options.data, options.out
    if not data.is_file():
        raise UsageError(f"--data {data}: no such file")
    seeds = tuple(options.seed + seed for seed in settings.seeds)
    epochs = settings.epochs if options.epochs is None else options.epochs
    if epochs < 1:
        raise UsageError(f"--epochs: {epochs} is too small; use 1 or more")
    settings = dataclasses.replace(settings, seeds=seeds, epochs=epochs)
    asked = {
        "model": options.model.name,
        "data": data.name,
        "quick": options.quick,
        "seed": options.seed,
        "epochs": epochs,
    }
    found: dict[str, Any] = {"settings": asked}
    path = folder / "results.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("settings") != asked:
            raise UsageError(f"--out {folder}: has results of another run; use another folder")
    if settings.subset is not None:
        data = subset_of(data, settings.subset, folder / "subset.npz")
    base = CompileOptions(
        wbits="32",
        abits="32",
        data=str(data),
        calib_images=settings.images,
        workers=1,
        seed=options.seed,
    )
    training, validation = training_options(base, None)
    if validation is None:
        raise UsageError(f"--data {data}: needs val_x and val_y to measure on")
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    return Study(options.model, settings, training, validation, folder, device, found)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="train_x, train_y, val_x, val_y")
    parser.add_argument("--model", type=Path, required=True, help="a trained ONNX model")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="a few cells, in minutes")
    parser.add_argument("--epochs", type=int, help="of every training  [2; 1 with --quick]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 2 with one line where something is wrong."""
    try:
        study(parse(arguments)).run()
    except QCompileError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
