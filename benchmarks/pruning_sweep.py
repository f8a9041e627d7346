"""Pruning sweeps of trained networks, as Markdown tables, each with the command that repeats it.

    python benchmarks/pruning_sweep.py FOLDER [--ratios 0.1,0.2,0.3] [--flags "--wbits 4 --abits 6"]

FOLDER holds `models/*.onnx` and `data/*.npz` (with train_x, val_x, val_y). Filters are chosen and
layers refitted on at most 16 of the training images; Dice and IoU are of the validation images.
Nothing is trained.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import tempfile
import time
from pathlib import Path

from qcompile.cli import run

NETWORKS = {
    "gm_unet8": ("spinalcord_gm", ("grey matter", "white matter")),
    "cvc_resunet": ("cvc_clinicdb", ("polyp",)),
    "pancreas_unet16": ("pancreas_ct", ("pancreas",)),
    "em_unet16": ("em_isbi2012", ("membrane",)),
}


def main() -> None:
    """Runs `qcompile sweep` on each network and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ratios", default="0.1,0.2,0.3,0.4,0.5")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--flags", default="", help="more flags of qcompile sweep, in one text")
    parser.add_argument("--workers", default="0")
    arguments = parser.parse_args()
    for name in arguments.networks:
        data, classes = NETWORKS[name]
        images = f"data/{data}.npz"
        given = ["--calib", f"{images}:train_x", "--data", images, "--ratios", arguments.ratios]
        given += shlex.split(arguments.flags)
        shown = shlex.join(["qcompile", "sweep", f"models/{name}.onnx", *given])
        full = [
            str(arguments.folder / text) if text.startswith(("models/", "data/")) else text
            for text in ["sweep", f"models/{name}.onnx", *given]
        ]
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder, "sweep.csv")
            code = run([*full, "--workers", arguments.workers, "-q", "--csv", str(table)])
            if code:
                raise SystemExit(code)
            rows = list(csv.DictReader(table.open(encoding="utf-8")))
        seconds = time.perf_counter() - start
        print(f"### {name}: {', '.join(classes)}\n\n`{shown}`\n")
        print(markdown(rows, classes), flush=True)
        print(f"\n{seconds:.0f} s for all rows.\n", flush=True)


def markdown(rows: list[dict[str, str]], classes: tuple[str, ...]) -> str:
    """The rows of a CSV table with shares of the first one."""
    scores = [
        (f"{kind} {title}" if len(classes) > 1 else kind, f"{kind.lower()}_{label}")
        for label, title in enumerate(classes, start=1)
        for kind in ("Dice", "IoU")
    ]
    head = ["ratio", "network", "filters", "parameters", "FLOPs", "bytes"]
    lines = [
        "| " + " | ".join([*head, *(title for title, _ in scores)]) + " |",
        "|" + " ---: |" * (len(head) + len(scores)),
    ]
    for row in rows:
        cells = [f"{float(row['ratio']):g}", row["network"], row["filters"]]
        for key in ("parameters", "flops"):
            share = int(row[key]) / int(rows[0][key])
            cells.append(f"{int(row[key]):,} ({share:.0%})")
        cells.append(f"{int(row['bytes']):,}")
        cells += [f"{float(row[key]):.4f}" for _, key in scores]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
