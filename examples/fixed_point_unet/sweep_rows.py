"""The rows of the sweep: what is trained, and what the table says of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcompile.errors import UsageError

KEPT_BITS = 8
"""Of the first block and the last convolution, at least."""


@dataclass(frozen=True)
class Setting:
    """One row of the sweep: bits of weights and activations, and how they are trained."""

    wbits: int
    abits: int
    epochs: int
    rate: float

    @property
    def name(self) -> str:
        return f"w{self.wbits}a{self.abits}"

    @property
    def kept_bits(self) -> int:
        """Of the first block's weights and the last convolution's."""
        return max(KEPT_BITS, self.wbits)


SWEEP = (
    Setting(16, 16, 2, 1e-4),
    Setting(8, 8, 2, 1e-4),
    Setting(4, 6, 6, 3e-4),
    Setting(2, 4, 20, 5e-4),
)


def settings_of(text: str, epochs: Sequence[int]) -> list[Setting]:
    """'8/8,4/6' and epochs for each of them (or one for all; 0: no training) to settings.

    Raises:
        UsageError: a setting is not of the sweep, or the numbers do not match.
    """
    known = {f"{item.wbits}/{item.abits}": item for item in SWEEP}
    names = text.split(",")
    for name in names:
        if name not in known:
            raise UsageError(f"--settings: '{name}' is unknown; use some of {', '.join(known)}")
    if not epochs:
        return [known[name] for name in names]
    if len(epochs) not in (1, len(names)):
        raise UsageError(f"--epochs: give one number, or one for each of {', '.join(names)}")
    if min(epochs) < 0:
        raise UsageError("--epochs: use 0 (no training) or more")
    numbers = list(epochs) * (len(names) if len(epochs) == 1 else 1)
    return [
        dataclasses.replace(known[name], epochs=number)
        for name, number in zip(names, numbers, strict=True)
    ]


def row_of(setting: Setting, folder: Path) -> dict[str, Any]:
    """What the table says of one setting."""
    report = json.loads((folder / "c" / "report.json").read_text())
    totals = report["totals"]
    # Of a tuned model the report compares with its own weights in float, not with the network
    # that the training began with.
    epochs, best = 0, 0
    whole, start, last = totals["dice_float"], totals["dice_quantized"], None
    if (folder / "tuned" / "history.json").is_file():
        history = json.loads((folder / "tuned" / "history.json").read_text())
        epochs, best = history["epochs"][-1]["epoch"], history["best_epoch"]
        whole, start = history["dice_float"], history["epochs"][0]["dice"]
        last = history["epochs"][-1]["dice"]
    weights = [layer for layer in report["layers"] if layer["weight_bits"] == setting.wbits]
    return {
        "wbits": setting.wbits,
        "abits": setting.abits,
        "epochs": epochs,
        "best_epoch": best,
        "fp32_bytes": totals["fp32_bytes"],
        "bytes_nominal": totals["weight_bytes_nominal"],
        "bytes_emitted": totals["weight_bytes_emitted"],
        "share_quantised": sum(layer["parameters"] for layer in weights) / totals["parameters"],
        "dice_float": whole,
        "dice_before_training": start,
        "dice_last_epoch": last,
        "dice": totals["dice_quantized"],
        "dice_classes": [item["quantized"]["mean"] for item in report["dice"]["classes"]],
        "verified": report["verified"],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, in the shape of the publication's."""
    first = rows[0]
    size = first["fp32_bytes"]
    lines = [
        "| weights | activations | nominal bytes | ratio | emitted bytes | ratio | Dice "
        "| loss, points | before training | last epoch | epochs (best) |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| float | float | {size:,} | 1.0 | {size:,} | 1.0 | {100 * first['dice_float']:.2f} | "
        f"| | | |",
    ]
    for row in rows:
        loss, before, last = (
            "" if row[name] is None else f"{100 * (row['dice_float'] - row[name]):+.2f}"
            for name in ("dice", "dice_before_training", "dice_last_epoch")
        )
        lines.append(
            f"| {row['wbits']} | {row['abits']} "
            f"| {row['bytes_nominal']:,} | {size / row['bytes_nominal']:.1f} "
            f"| {row['bytes_emitted']:,} | {size / row['bytes_emitted']:.1f} "
            f"| {100 * row['dice']:.2f} | {loss} | {before} | {last} "
            f"| {row['epochs']} ({row['best_epoch']}) |"
        )
    return "\n".join(lines) + "\n"
