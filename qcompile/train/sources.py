"""Which arrays of a file are trained on, and which are kept for validation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from qcompile.data.arrays import open_arrays
from qcompile.data.evaluation import EVALUATION_KEYS
from qcompile.errors import DataError, UsageError
from qcompile.options import CompileOptions, Effort

TRAINING_KEYS = (("train_x", "train_y", "train_case"), *EVALUATION_KEYS[1:])
VALIDATION_KEYS = EVALUATION_KEYS[0]


def training_options(
    options: CompileOptions, val: str | None
) -> tuple[CompileOptions, CompileOptions | None]:
    """The options with the training data for `data` and `calib`, and with the validation data.

    Args:
        options: `data` is a `.npz`; or `images` and `masks` are given.
        val: `--val`; without it, `val_x` and `val_y` of `data` are taken where they are.

    Returns:
        The second is None where the training data are to be split.

    Raises:
        DataError: there are no arrays to train on.
        UsageError: no data are given.
    """
    if options.data is None:
        if options.images is None:
            raise UsageError("--data: give images and labels to train on, such as --data train.npz")
        training = dataclasses.replace(options, calib=options.images)
        if val is None:
            return training, None
        return training, _judged(options, val, None)
    keys = options.data_keys or _keys(options.data, TRAINING_KEYS)
    if keys is None:
        pairs = ", ".join("/".join(names[:2]) for names in TRAINING_KEYS)
        raise DataError(
            f"{Path(options.data).name}: has none of the pairs {pairs}; choose with --data-keys"
        )
    training = dataclasses.replace(options, data_keys=keys, calib=f"{options.data}:{keys[0]}")
    if val is not None:
        return training, _judged(options, val, None)
    found = _keys(options.data, (VALIDATION_KEYS,))
    if found is None or found[0] == keys[0]:
        return training, None
    return training, _judged(options, options.data, found)


def _judged(options: CompileOptions, data: str, keys: tuple[str, ...] | None) -> CompileOptions:
    return dataclasses.replace(
        options,
        data=data,
        data_keys=keys,
        images=None,
        masks=None,
        calib=None,
        effort=Effort.AUTO,
    )


def _keys(data: str, candidates: tuple[tuple[str, str, str], ...]) -> tuple[str, ...] | None:
    """The first candidate whose images and labels are there, with cases if they are."""
    present = open_arrays(Path(data)).keys
    for images, labels, cases in candidates:
        if images in present and labels in present:
            return (images, labels, cases) if cases in present else (images, labels)
    return None
