"""Speed of the generated C against onnxruntime and OpenVINO on a CPU, as Markdown.

    pip install -c constraints.txt '.[bench]'
    python benchmarks/cpu.py
    python benchmarks/cpu.py --networks S --threads 1 --layers S --models FOLDER --write results.md

Every program runs in a process of its own, and they take turns: each computes for a moment, round
after round, so that what else the machine does hits all of them. The C is built with `gcc -O3`,
once for each set of instructions, and must have the simulator's bits before it is timed. Peers
that are not installed are left out, with the reason. Random pixels, random calibration.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cpu_bench.compiled import BUILDS, Compiled, compile_network, layer_times, make_rivals
from cpu_bench.networks import Network, synthetic, trained
from cpu_bench.peers import Peers, make_peers, python_alone, versions
from cpu_bench.rivals import Rival, measure
from cpu_bench.tables import ONE_THREAD, Run, layers, machine, results, targets, written_between


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="*", default=["S", "M"], choices=["S", "M"])
    parser.add_argument("--models", type=Path, help="folder of the trained networks")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch-seconds", type=float, default=0.25)
    parser.add_argument("--cold-starts", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="where the models of the peers are kept")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--layers", nargs="*", default=[], help="networks whose layers are timed")
    parser.add_argument(
        "--write", type=Path, help="also write the tables to this file, between its marks"
    )
    return parser.parse_args()


def measured_runs(
    network: Network, compiled: Sequence[Compiled], folder: Path, options: argparse.Namespace
) -> tuple[list[Run], list[str]]:
    """One network at each number of threads, and why peers are missing."""
    runs: list[Run] = []
    missing: list[str] = []
    for threads in options.threads:
        ours = [rival for item in compiled for rival in make_rivals(item, threads)]
        if threads > 1:
            ours.append(on_one_thread(ours[0]))
        peers = Peers((), ("peers: not asked for",))
        if not options.no_peers:
            peers = make_peers(network.model, threads, folder)
        measured = measure(
            [*ours, *peers.rivals],
            threads,
            options.rounds,
            options.batch_seconds,
            options.cold_starts,
        )
        runs.append(Run(network.name, threads, compiled[0].macs, tuple(measured)))
        missing += peers.missing
    return runs, missing


def on_one_thread(rival: Rival) -> Rival:
    """The same program in the same turns: cores may be faster or slower minutes later."""
    name = rival.name.replace(",", f", {ONE_THREAD},", 1)
    return replace(rival, name=name, environment={"OMP_NUM_THREADS": "1"})


def main() -> None:
    """Measures, prints, and writes where asked to."""
    options = parse()
    parts: list[str] = []

    def say(text: str) -> None:
        parts.append(text)
        print(text, flush=True)

    with tempfile.TemporaryDirectory(prefix="qcompile-") as name:
        work = Path(name)
        cache = options.cache or work
        cache.mkdir(parents=True, exist_ok=True)
        networks = [synthetic(item, cache) for item in options.networks]
        networks += trained(options.models) if options.models else []
        say(machine(versions()))
        if not options.no_peers and options.cold_starts:
            seconds, peak = python_alone(options.cold_starts)
            say(
                f"Peers run under Python, which alone, with numpy, starts in {seconds * 1e3:.0f} "
                f"ms and takes {peak / 1e6:.0f} MB.\n"
            )
        runs: list[Run] = []
        for network in networks:
            compiled = [
                compile_network(setting, work / network.name / setting.name)
                for setting in network.settings
            ]
            found, missing = measured_runs(network, compiled, cache, options)
            say(f"**{network.name}**: {network.text}, {compiled[0].macs / 1e9:.2f} GMAC.")
            for item in compiled:
                say(f"{item.setting.name}: {item.share:.1%} of the weights are not zero.")
            for reason in dict.fromkeys(missing):
                say(f"Left out: {reason}.")
            for run in found:
                say(f"\n{network.name}, {run.threads} thread{'s' * (run.threads > 1)}:\n")
                say(results(run))
            runs += found
            for item in compiled if network.name in options.layers else ():
                instructions, times = layer_times(item, BUILDS[0], 4 * options.batch_seconds)
                say(f"{network.name} {item.setting.name}, one thread, {instructions}:\n")
                say(layers(times))
        say("Targets, as ratios of medians of one run:\n")
        say(targets(runs))
    if options.write:
        page = options.write.read_text(encoding="utf-8") if options.write.exists() else ""
        options.write.write_text(written_between(page, "\n".join(parts)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
