"""What compilation costs trained networks in Dice, as a Markdown table.

    python benchmarks/accuracy.py FOLDER [--networks gm_unet8 ...] [--settings 4/6 ...]
        [--efforts nearest fast normal best] [--seeds 3] [--threads 1]

FOLDER holds `models/*.onnx` and `data/*.npz` (with train_x, val_x, val_y). 32 training images
calibrate; Dice is that of the validation images: the mean over images, then over the foreground
classes. SQNR is that of the network's outputs on the same images. Nothing is trained.

A setting is WEIGHTS/ACTIVATIONS; `mean3.0/6` are mixed widths with 3.0 bits mean, `fixed4/6` scales
that are powers of two. Seconds are those of calibration and quantisation, on `--threads` threads.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from qcompile import CompileOptions
from qcompile.data import load_sources
from qcompile.evaluate import Evaluation, Judging, evaluate
from qcompile.feeds import float_feed, input_specs
from qcompile.importer import import_model
from qcompile.logits import logits_sqnr
from qcompile.options import Effort, InputChoice, Target
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.base import run_passes
from qcompile.passes.calibrate import calibrate
from qcompile.pipeline import simplify_passes
from qcompile.quantization import Quantization
from qcompile.search.mean_bits import mean_bits_plan
from qcompile.sim.threads import limit_threads
from qcompile.targets import emit

NETWORKS = {
    "em_unet16": "em_isbi2012",
    "pancreas_unet16": "pancreas_ct",
    "gm_unet8": "spinalcord_gm",
    "cvc_resunet": "cvc_clinicdb",
}
SETTINGS = ("8/8", "4/6", "3/4", "ternary/6", "mean3.0/6", "mean2.5/6", "fixed4/6")
MEAN, FIXED = "mean", "fixed"


@dataclass(frozen=True)
class Row:
    """One network, quantized once."""

    drop: float
    sqnr: float
    seconds: float
    bytes: int


def flags_of(setting: str) -> dict[str, object]:
    """The options that a setting stands for."""
    weights, _, activations = setting.partition("/")
    if weights.startswith(MEAN):
        return {"mean_wbits": float(weights.removeprefix(MEAN)), "abits": activations}
    if weights.startswith(FIXED):
        return {"wbits": weights.removeprefix(FIXED), "abits": activations, "quantizer": "fixed"}
    return {"wbits": weights, "abits": activations}


def command(folder: Path, setting: str) -> str:
    """The command line that measures the same."""
    flags = " ".join(f"--{key.replace('_', '-')} {text}" for key, text in flags_of(setting).items())
    images = f"{folder / 'data'}/DATA.npz"
    return (
        f"qcompile {folder / 'models'}/NETWORK.onnx {flags} --effort EFFORT --seed SEED "
        f"--calib {images}:train_x --data {images}"
    )


class Network:
    """One model with its images; the float network is evaluated once."""

    def __init__(self, folder: Path, name: str) -> None:
        images = folder / "data" / f"{NETWORKS[name]}.npz"
        plain = CompileOptions(target=Target.C, calib=f"{images}:train_x", data=str(images))
        imported = import_model(folder / "models" / f"{name}.onnx", {})
        self.source = load_sources(imported, plain)
        self.options = replace(plain, input_kind=InputChoice(self.source.kind.value))
        self.specs = input_specs(imported, self.source.kind, self.options)
        self.graph = run_passes(imported, simplify_passes(self.options))
        assert self.source.evaluation is not None
        self.known: Evaluation | None = None

    def measure(self, setting: str, effort: str, seed: int) -> Row:
        """Quantizes the network and measures what it lost."""
        options = replace(self.options, effort=Effort(effort), seed=seed, **flags_of(setting))
        plan = assign_formats(self.graph, options)
        start = time.perf_counter()
        feeds = [float_feed(feed, self.specs) for feed in self.source.feeds]
        calibration = calibrate(self.graph, feeds, seed)
        quantization = Quantization(self.graph, calibration, self.specs, options, self.source.feeds)
        if options.mean_wbits is not None:
            plan = mean_bits_plan(quantization, plan, self.source.feeds)
        lowered = quantization.lowered(plan)
        seconds = time.perf_counter() - start
        assert self.source.evaluation is not None
        found = evaluate(
            *(self.graph, lowered.integer, self.source.evaluation, self.specs),
            Judging.of(options),
            known=self.known,
        )
        self.known = found
        sqnr = logits_sqnr(lowered.real, lowered.integer, list(self._validation()), self.specs)
        emitted = emit(lowered.integer, options, {}, [], lowered.quantized, self.specs)
        return Row(
            100 * (found.dice_float - found.dice_quantized),
            sqnr or 0.0,
            seconds,
            emitted.constant_bytes,
        )

    def _validation(self) -> Iterator[dict[str, object]]:
        from qcompile.evaluate import tiles_of

        evaluation = self.source.evaluation
        assert evaluation is not None
        shapes = {name: self.graph.types[name].shape for name in self.graph.inputs}
        yield from tiles_of(evaluation, shapes)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS))
    efforts = [effort.value for effort in Effort if effort is not Effort.AUTO]
    parser.add_argument("--efforts", nargs="+", default=efforts, choices=efforts)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    print("| network | bits w/a | effort | Dice lost, points | SQNR, dB | bytes | s |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for name in arguments.networks:
        network = Network(arguments.folder, name)
        for setting in arguments.settings:
            for effort in arguments.efforts:
                seeds = range(arguments.seeds if effort != Effort.NEAREST.value else 1)
                rows = [network.measure(setting, effort, seed) for seed in seeds]
                drops = [row.drop for row in rows]
                spread = f" ({min(drops):+.2f}..{max(drops):+.2f})" if len(rows) > 1 else ""
                print(
                    f"| {name} | {setting} | {effort} | {statistics.mean(drops):+.2f}{spread} "
                    f"| {statistics.mean(row.sqnr for row in rows):.1f} | {rows[0].bytes} "
                    f"| {statistics.mean(row.seconds for row in rows):.1f} |",
                    flush=True,
                )
    print("\nA row is what this measures, for each seed:\n")
    for setting in arguments.settings:
        print(f"    {command(arguments.folder, setting)}")


if __name__ == "__main__":
    main()
