"""Dice of trained networks after compilation, as a Markdown table.

    python benchmarks/dice_tables.py FOLDER [--settings 8/8 4/6 3/4]

FOLDER holds `models/*.onnx` and `data/*.npz` (with train_x, val_x, val_y). Ranges come from 32
training images, Dice from the validation images: the mean over images of each foreground class.
Nothing is trained.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from qcompile import CompileOptions, compile_model

NETWORKS = {
    "em_unet16": ("em_isbi2012", ("membrane",)),
    "pancreas_unet16": ("pancreas_ct", ("pancreas",)),
    "gm_unet8": ("spinalcord_gm", ("grey matter", "white matter")),
    "cvc_resunet": ("cvc_clinicdb", ("polyp",)),
}


def main() -> None:
    """Compiles, measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--settings", nargs="+", default=["8/8", "4/6", "3/4"])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    arguments = parser.parse_args()
    print("| network | bits w/a | class | Dice float | Dice compiled | difference | weights | s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in arguments.networks:
        data, classes = NETWORKS[name]
        for setting in arguments.settings:
            wbits, abits = setting.split("/")
            images = arguments.folder / "data" / f"{data}.npz"
            options = CompileOptions(
                wbits=wbits, abits=abits, calib=f"{images}:train_x", data=str(images)
            )
            start = time.perf_counter()
            result = compile_model(arguments.folder / "models" / f"{name}.onnx", options)
            seconds = time.perf_counter() - start
            evaluation = result.report.evaluation
            totals = result.report.totals
            assert evaluation is not None
            pairs = zip(evaluation.float_scores, evaluation.quantized_scores, strict=True)
            for title, (before, after) in zip(classes, pairs, strict=True):
                print(
                    f"| {name} | {setting} | {title} | {before.mean:.4f} | {after.mean:.4f} "
                    f"| {after.mean - before.mean:+.4f} | {totals.weight_bytes_emitted} B "
                    f"| {seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
