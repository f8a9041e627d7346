"""Ensembles: networks that are trained alike, each on its own bootstrap sample of the images.

Where they disagree, the images that they saw do not settle the question (B. Efron, Bootstrap
Methods: Another Look at the Jackknife, 1979; for suggestive annotation Yang et al., MICCAI 2017).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.errors import DataError, UsageError
from qcompile.output import write_files
from qcompile.suggest.ensemble_file import ENSEMBLE_FILE, LEAST_MEMBERS, ensemble_text
from qcompile.train.curves import Epoch
from qcompile.train.options import TrainOptions

logger = logging.getLogger("qcompile")

MOST_MEMBERS = 100
LEAST_IMAGES = 2
Progress = Callable[[str, int, int], None]
"""progress(stage, done, total)"""


@dataclass(frozen=True)
class Task:
    """What one network is trained on.

    Attributes:
        drawn: its bootstrap sample: indices of images, some of them several times.
        left_out: the images that were not drawn.
        options: of the run, with a seed of its own.
        folder: for checkpoints of its own; it need not exist.
    """

    drawn: tuple[int, ...]
    left_out: tuple[int, ...]
    options: TrainOptions
    folder: Path


@dataclass(frozen=True)
class Trained:
    """One network.

    Attributes:
        model: an ONNX file.
        plan: how it is to be compiled, as TOML; None: it is a float network.
        dice: of the best epoch; None if nothing was measured.
        epochs: what happened.
    """

    model: bytes
    plan: str | None
    dice: float | None
    epochs: tuple[Epoch, ...]


Trainer = Callable[[Task], Trained]


def bootstrap_sample(count: int, seed: int, member: int) -> tuple[int, ...]:
    """As many images as there are, drawn with replacement: about 63 % of them occur.

    Args:
        count: of images.
        seed: of the ensemble.
        member: number of the network; every one draws for itself.
    """
    drawn = np.random.default_rng([seed, member]).integers(0, count, count)
    return tuple(sorted(int(index) for index in drawn))


def train_ensemble(
    folder: Path,
    members: int,
    images: int,
    train: TrainOptions,
    trainer: Trainer,
    settings: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Trains networks one after the other and writes each when it is done; `ensemble.json` last.

    Args:
        folder: where they go; created if need be. With `train.resume` those that are there stay.
        members: how many.
        images: to draw from.
        train: of each run; every network has a seed that follows from `train.seed`.
        trainer: trains one.
        settings: what else decides about the result (the images, too), as plain values; compared
            when a run goes on.
        progress: told of every network.

    Raises:
        UsageError: too few or too many members, too few images, or other settings than those of the
            run before.
        DataError: what the run before left is damaged.
    """
    if not LEAST_MEMBERS <= members <= MOST_MEMBERS:
        raise UsageError(f"--members {members}: use {LEAST_MEMBERS} to {MOST_MEMBERS}")
    if images < LEAST_IMAGES:
        raise UsageError(f"{images} image(s) to draw from; give {LEAST_IMAGES} or more")
    common = {**train.settings(), **settings, "images": images}
    rows, hashes = [], []
    for member in range(1, members + 1):
        name = f"member-{member}"
        row = _known(folder / f"{name}.json", common) if train.resume else None
        if row is None:
            drawn = bootstrap_sample(images, train.seed, member)
            left_out = tuple(index for index in range(images) if index not in set(drawn))
            seed = int(np.random.default_rng([train.seed, member, 1]).integers(2**31))
            options = dataclasses.replace(train, seed=seed)
            found = trainer(Task(drawn, left_out, options, folder / name))
            row = _write_member(folder, name, found, drawn, common)
        rows.append({key: row[key] for key in ("model", "plan", "images", "dice")})
        hashes.append(row["sha256"][row["model"]])
        progress("networks", member, members)
    if len(set(hashes)) < members:
        logger.warning(
            "some networks are equal: training changed nothing for the better; use more --epochs "
            "or another --lr"
        )
    write_files(folder, {ENSEMBLE_FILE: ensemble_text(rows, {"settings": common})})


def digest(arrays: Sequence[Any]) -> str:
    """SHA-256 of arrays: the same for the same images and masks."""
    found = hashlib.sha256()
    for array in arrays:
        data = np.ascontiguousarray(array)
        found.update(f"{data.dtype.str}{data.shape}".encode())
        found.update(data.tobytes())
    return found.hexdigest()


def _write_member(
    folder: Path, name: str, found: Trained, drawn: Sequence[int], common: Mapping[str, Any]
) -> dict[str, Any]:
    files: dict[str, str | bytes] = {f"{name}.onnx": found.model}
    if found.plan is not None:
        files[f"{name}.toml"] = found.plan
    row = {
        "settings": dict(common),
        "model": f"{name}.onnx",
        "plan": None if found.plan is None else f"{name}.toml",
        "images": list(drawn),
        "dice": found.dice,
        "epochs": [dataclasses.asdict(item) for item in found.epochs],
        "sha256": {path: _sha256(content) for path, content in files.items()},
    }
    # The description last: a network without one does not count as trained.
    write_files(folder, files)
    write_files(folder, {f"{name}.json": json.dumps(row, indent=1) + "\n"})
    return row


def _known(path: Path, common: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an earlier run wrote of a network; None if it did not come so far."""
    if not path.is_file():
        return None
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        before, hashes = row["settings"], row["sha256"]
        whole = {"model", "plan", "images", "dice"} <= set(row) and all(
            Path(name).name == name and _sha256((path.parent / name).read_bytes()) == value
            for name, value in hashes.items()
        )
        names = sorted({*before, *common})
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        whole = False
    if not whole:
        raise DataError(f"{path}: does not fit the files beside it; leave out --resume")
    now = json.loads(json.dumps(dict(common)))
    for name in names:
        if before.get(name) != now.get(name):
            raise UsageError(
                f"--resume: {path} was made with {name} {before.get(name)}, now it is "
                f"{now.get(name)}; repeat the options, or leave out --resume to start anew"
            )
    return dict(row)


def _sha256(content: bytes | str) -> str:
    data = content.encode("utf-8") if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()
