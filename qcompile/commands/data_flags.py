"""The flags about data and Dice, which all commands that evaluate share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from qcompile.data_options import DATA_CHOICES, parse_data_keys

Command = TypeVar("Command", bound=Callable[..., Any])


def _values(name: str) -> click.Choice[str]:
    return click.Choice([item.value for item in DATA_CHOICES[name]])


DATA_FLAGS: tuple[Callable[[Command], Command], ...] = (
    click.option("--data", metavar="FILE.npz", help="Images and labels to measure Dice on."),
    click.option(
        "--data-keys",
        metavar="IMAGES,LABELS[,CASES]",
        help="Arrays in --data.  [val_x,val_y or x,y or images,labels]",
    ),
    click.option(
        "--images",
        metavar="FILE|DIR",
        help="In place of --data: pictures, NIfTI or DICOM series to measure Dice on.",
    ),
    click.option(
        "--masks", metavar="FILE|DIR", help="The masks of --images, named like their images."
    ),
    click.option(
        "--window",
        metavar="LOW,HIGH",
        help="Intensities that become the pixels 0 and 255, such as -160,240; or percentiles "
        "(p1,p99); or zscore or raw (floats).",
    ),
    click.option(
        "--slices",
        metavar="PLANE",
        help="How volumes are cut: axial, coronal, sagittal, a stored axis (0, 1, 2), or where "
        "slices, rows and columns run to (SPL).",
    ),
    click.option("--mask-values", type=_values("mask_values"), help="Numbers in masks.  [auto]"),
    click.option(
        "--tile-halo",
        metavar="N|auto",
        help="Cut large images into tiles that overlap by N pixels on each side (auto: as far as "
        "the network sees).  [side by side]",
    ),
    click.option(
        "--metric-threshold", type=float, help="Probability of the foreground, one channel.  [0.5]"
    ),
    click.option("--empty-dice", type=_values("empty_dice"), help="What empty masks count.  [one]"),
    click.option(
        "--dice-over",
        type=_values("dice_over"),
        help="What totals and gates are means of: images (slices), cases (volumes), or all pixels "
        "together.  [image]",
    ),
    click.option(
        "--object-metrics",
        is_flag=True,
        default=None,
        help="Also F1, Dice and Hausdorff distance of single objects.",
    ),
)
"""In the order of `--help`."""


def data_flags(command: Command) -> Command:
    """Decorates a command with all of them."""
    for flag in reversed(DATA_FLAGS):
        command = flag(command)
    return command


def data_fields(flags: dict[str, Any]) -> None:
    """Turns what click parsed into fields of `CompileOptions`, in place."""
    for name, kind in DATA_CHOICES.items():
        if flags[name] is not None:
            flags[name] = kind(flags[name])
    if flags["data_keys"] is not None:
        flags["data_keys"] = parse_data_keys(flags["data_keys"])
