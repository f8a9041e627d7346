"""Suggestive annotation in rounds: what is a share of annotated images worth, suggested or drawn?

For every seed: a few images drawn at random are labelled; an ensemble trained on bootstrap samples
of them suggests the next ones, in float or as 5-bit powers of two; after each round a network is
trained on what is labelled then, and judged. Every result is a JSON file of its own, so that a run
that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from round_plots import rounds_svg, table_text
from torch import nn

from qcompile.options import CompileOptions
from qcompile.output import write_file, write_files
from qcompile.pipeline import compile_model
from qcompile.report.metrics import ClassScore, overlaps, scores_from
from qcompile.report.objects import ObjectScore, counts_of_class
from qcompile.suggest.ensemble_file import find_members
from qcompile.suggest.files import suggestion_files
from qcompile.suggest.run import SuggestOptions, suggest
from qcompile.train.augment import Augment
from qcompile.train.device import torch_device
from qcompile.train.ensemble import train_ensemble
from qcompile.train.ensemble_trainers import UNetTrainer
from qcompile.train.float_network import UNet, export_onnx, train_float
from qcompile.train.losses import Loss
from qcompile.train.options import TrainOptions
from qcompile.train.samples import Samples
from qcompile.types import Array

CODES = {"quantizer": "pow2", "wbits": 5, "abits": 32}
"""The formats of Xu et al. 2018: powers of two as weights, activations in floats."""
WAYS = ("random", "float", "quantised")
"""Images drawn at random; suggested by the float ensemble; by the ensemble of 5-bit weights."""


@dataclasses.dataclass(frozen=True)
class Design:
    """
    Attributes:
        scale: images are this many times smaller.
        base: channels of the first level of each U-Net.
        depth: how often it halves the size.
        members: networks of an ensemble.
        member_steps: of training one of them; final_steps: of the network that is judged.
        batch: images in a step.
        rate: of AdamW.
        shares: of the images that have labels, in percent: those at the start, then after each
            round; 100 is the same for all ways.
        images: of the training set that take part; None: all.
    """

    scale: int = 3
    base: int = 6
    depth: int = 3
    members: int = 3
    member_steps: int = 150
    final_steps: int = 300
    batch: int = 4
    rate: float = 4e-3
    shares: tuple[int, ...] = (10, 25, 50, 100)
    images: int | None = None


QUICK = Design(
    scale=6, base=4, depth=2, members=2, member_steps=30, final_steps=60, shares=(25, 50, 100),
    images=16,
)  # fmt: skip


def smaller(images: Array, scale: int) -> Array:
    """Means of squares of [N, H, W, ...], uint8; rows and columns at the end that fill none are
    cut."""
    count, height, width = images.shape[:3]
    rows, columns = height // scale, width // scale
    cut = images[:, : rows * scale, : columns * scale].astype(np.float64)
    squares = cut.reshape(count, rows, scale, columns, scale, *images.shape[3:])
    return np.asarray(np.floor(squares.mean(axis=(2, 4)) + 0.5).astype(np.uint8))


def write_data(data: Path, design: Design, path: Path) -> None:
    """train_x, train_y, val_x, val_y at the size of the networks; masks are 0 and 1."""
    step = design.scale << design.depth
    arrays = {}
    with np.load(data, allow_pickle=False) as file:
        for part in ("train", "val"):
            images, masks = file[f"{part}_x"], file[f"{part}_y"]
            height, width = (size // step * step for size in images.shape[1:3])
            images, masks = images[:, :height, :width], masks[:, :height, :width]
            arrays[f"{part}_x"] = smaller(images, design.scale)[: design.images]
            arrays[f"{part}_y"] = smaller((masks > 0) * np.uint8(1), design.scale)[: design.images]
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_files(path.parent, {path.name: buffer.getvalue()})


def judge(module: nn.Module, samples: Samples) -> dict[str, float]:
    """Scores of a network with one logit."""
    device = next(module.parameters()).device
    counts, objects = [], []
    with torch.no_grad():
        for part in samples.in_order(8):
            (images,) = part.inputs.values()
            found = (module(images.to(device))[:, 0] > 0).cpu().numpy().astype(np.uint8)
            for prediction, label in zip(found, part.labels.cpu().numpy(), strict=True):
                counts.append(overlaps(prediction, label, (1,)))
                objects.append(counts_of_class(prediction, label, 1))
    return scores_of(scores_from(counts, (1,))[0], ObjectScore(1, tuple(objects)))


def scores_of(score: ClassScore, objects: ObjectScore) -> dict[str, float]:
    """Dice of pixels is the mean over images; F1 takes the objects of all images together."""
    return {
        "dice": score.mean,
        "f1": objects.pooled_f1,
        "object_dice": objects.mean_dice,
        "object_hausdorff": objects.mean_hausdorff,
    }


class Rounds:
    """One seed."""

    def __init__(self, data: Path, folder: Path, design: Design, seed: int, device: str) -> None:
        self.data, self.folder, self.design, self.seed = data, folder / f"seed-{seed}", design, seed
        self.device = str(torch_device(device))
        with np.load(data, allow_pickle=False) as file:
            self.samples = Samples.from_arrays(file["train_x"], file["train_y"])
            self.validation = Samples.from_arrays(file["val_x"], file["val_y"])
        self.total = len(self.samples.labels)

    def run(self) -> list[dict[str, Any]]:
        """All cells of the design, as they are in their files."""
        order = [int(i) for i in np.random.default_rng([self.seed, 7]).permutation(self.total)]
        first, *later, last = self.design.shares
        start = order[: self.count(first)]
        results = [
            self.final("all", last, sorted(order[: self.count(last)])),
            *(self.final("random", s, sorted(order[: self.count(s)])) for s in later),
        ]
        for way in WAYS[1:]:
            known = start
            for share in later:
                known = self.suggested(way, share, known)
                results.append(self.final(way, share, known))
        return results

    def count(self, share: int) -> int:
        """Images of a share, half up."""
        return (self.total * share + 50) // 100

    def suggested(self, way: str, share: int, known: list[int]) -> list[int]:
        """The labelled images after a round that starts with `known`."""
        return list(
            self.cell(f"round-{way}-{share}", lambda: self._suggest(way, share, known))["labelled"]
        )

    def _suggest(self, way: str, share: int, known: list[int]) -> dict[str, Any]:
        is_first = share == self.design.shares[1]
        # The first ensemble is the same for both ways.
        ensemble = self.folder / ("ensemble-start" if is_first else f"ensemble-{way}-{share}")
        self._ensemble(ensemble, known)
        labelled = self.folder / f"labelled-{way}-{share}.txt"
        write_file(labelled, "".join(f"{index}\n" for index in known))
        pool = f"{self.data}:train_x"
        plain = CompileOptions(calib=pool, calib_images=8, workers=1)
        quantised = way == "quantised"
        options = dataclasses.replace(plain, **CODES) if quantised else plain
        found = suggest(
            [(member, options, quantised) for member in find_members([ensemble])],
            pool,
            SuggestOptions(self.count(share) - len(known), annotated=(labelled,)),
            lambda *_: None,
        )
        page = suggestion_files(found, found.opinions(1))["suggestions.html"]
        write_file(self.folder / f"suggestions-{way}-{share}.html", str(page))
        left = [index for index in range(self.total) if index not in set(known)]
        return {
            "way": way,
            "share": share,
            "suggested": list(found.images),
            "labelled": sorted({*known, *found.images}),
            "uncertainty": float(np.mean([found.uncertainty[index] for index in left])),
        }

    def _ensemble(self, folder: Path, known: list[int]) -> None:
        design = self.design
        trainer = UNetTrainer(
            self.samples.subset(known), 2, design.base, design.depth, self.device, left_out=False
        )
        settings = {"base": design.base, "depth": design.depth, "known": known}
        options = self._training(design.member_steps, len(known))
        train_ensemble(
            folder, design.members, len(known), options, trainer, settings, lambda *_: None
        )

    def final(self, way: str, share: int, known: list[int]) -> dict[str, Any]:
        """A network that is trained on the labelled images, and what it is worth."""
        return self.cell(f"final-{way}-{share}", lambda: self._final(way, share, known))

    def _final(self, way: str, share: int, known: list[int]) -> dict[str, Any]:
        options = self._training(self.design.final_steps, len(known))
        samples = self.samples.subset(known)
        (shape,) = samples.shapes.values()
        # The same weights at the start for all ways of one share.
        seed = 1000 * self.seed + share
        module = UNet(shape[1], 1, self.design.base, self.design.depth, seed).to(self.device)
        train_float(module, samples, None, options)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model(way, share).write_bytes(export_onnx(module, shape))
        scores = judge(module, self.validation)
        return {**self.named(way, share), "images": len(known), "scores": scores}

    def codes(self, way: str, share: int) -> dict[str, Any]:
        """The same network with 5-bit weights, compiled, as the simulator runs it."""
        return self.cell(f"codes-{way}-{share}", lambda: self._codes(way, share))

    def _codes(self, way: str, share: int) -> dict[str, Any]:
        report = compile_model(
            self.model(way, share),
            CompileOptions(
                target="sim", data=str(self.data), data_keys=("val_x", "val_y"),
                calib=f"{self.data}:train_x", calib_images=8, workers=1, object_metrics=True,
                **CODES,
            ),
        ).report  # fmt: skip
        found = report.evaluation
        assert found is not None
        scores = scores_of(found.quantized_scores[0], found.quantized_objects[0])
        return {**self.named(way, share), "scores": scores}

    def model(self, way: str, share: int) -> Path:
        return self.folder / f"final-{way}-{share}.onnx"

    def named(self, way: str, share: int) -> dict[str, Any]:
        return {"way": way, "share": share, "seed": self.seed}

    def _training(self, steps: int, images: int) -> TrainOptions:
        """As many steps for few images as for many."""
        batch = min(self.design.batch, images)
        epochs = max(1, round(steps / -(-images // batch)))
        return TrainOptions(
            epochs, batch, self.design.rate, patience=0,
            augment=Augment(frozenset({"flips", "brightness"})), loss=Loss(),
            device=self.device, resume=True, seed=self.seed,
        )  # fmt: skip

    def cell(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a file says, or what is made now and written to it."""
        path = self.folder / f"{name}.json"
        design = json.loads(json.dumps(dataclasses.asdict(self.design)))
        if path.exists():
            known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if known["design"] != design:
                raise SystemExit(f"{path}: of another design; use another --out")
            return known
        begin = time.perf_counter()
        found = make()
        found |= {"design": design, "seconds": round(time.perf_counter() - begin, 1)}
        write_file(path, json.dumps(found, indent=1) + "\n")
        scores = f": Dice {found['scores']['dice']:.4f}" if "scores" in found else ""
        print(f"seed {self.seed}, {name}{scores}, {found['seconds']} s", flush=True)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--out", type=Path, default=Path("suggest-rounds"), metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--repeats", type=int, help="seeds  [3; 1 with --quick]")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--quick", action="store_true", help="minutes; says nothing about Dice")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    design = QUICK if given.quick else Design()
    data = given.out / "data.npz"
    write_data(given.data, design, data)
    repeats = given.repeats or (1 if given.quick else 3)
    seeds = [
        Rounds(data, given.out, design, seed, given.device)
        for seed in range(given.seed, given.seed + repeats)
    ]
    results: list[dict[str, Any]] = []
    for rounds in seeds:
        results += rounds.run()
        write_results(given.out, results, [])
    codes: list[dict[str, Any]] = []
    for item in results:
        rounds = seeds[item["seed"] - given.seed]
        codes.append(rounds.codes(item["way"], item["share"]))
    write_results(given.out, results, codes)
    print((given.out / "table.md").read_text(encoding="utf-8"))


def write_results(folder: Path, results: list[dict[str, Any]], codes: list[dict[str, Any]]) -> None:
    table = {"float": results, "codes": codes}
    write_file(folder / "results.json", json.dumps(table, indent=1) + "\n")
    write_file(folder / "rounds.svg", rounds_svg(results))
    write_file(folder / "table.md", table_text(results, codes))


if __name__ == "__main__":
    main()
