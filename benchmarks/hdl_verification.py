"""Accelerators against the simulator: cycles promised and measured, seconds, elements compared.

    pip install -c constraints.txt .
    python benchmarks/hdl_verification.py MODEL.onnx --wbits 4 --abits 6 --calib IMAGES.npz

compiles a model, simulates its accelerator with CXXRTL (two frames without stalls), compares every
tensor of both, and prints one row of the table of docs/hdl-verification.md. A sparing size
(`--input-shape`) and fewer cycles a frame (`--multipliers`) shorten the simulation.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from qcompile.backends.hdl.backend import HdlBackend
from qcompile.backends.hdl.simulate import Simulation
from qcompile.backends.hdl.verify import verify
from qcompile.data import random_feeds
from qcompile.hdl_options import FifoPolicy
from qcompile.hw.pressure import predict
from qcompile.options import CompileOptions, Target, parse_input_shape
from qcompile.passes.size_fifos import SizeFifos
from qcompile.pipeline import compile_model

HEADER = (
    "| network | bits w/a | multiply-accumulates | cycles, promised | simulated | with minimal"
    " FIFOs, promised | latency, promised | simulated | FIFO bits"
    " | build s | simulation s | elements |"
)


def main() -> None:
    """One row of the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--wbits", default="4")
    parser.add_argument("--abits", default="6")
    parser.add_argument("--first-last-bits", default="8")
    parser.add_argument("--calib")
    parser.add_argument("--input-shape", type=parse_input_shape, action="append", default=[])
    parser.add_argument("--multipliers", type=int)
    parser.add_argument("--fifos", type=FifoPolicy, default=FifoPolicy.RATE)
    parser.add_argument("--frames", type=int, default=2)
    given = parser.parse_args()
    options = CompileOptions(
        target=Target.SIM,
        wbits=given.wbits,
        abits=given.abits,
        first_last_bits=given.first_last_bits,
        calib=given.calib,
        input_shapes=dict(given.input_shape),
    )
    result = compile_model(given.model, options)
    graph = result.integer_graph
    plan = HdlBackend(multipliers=given.multipliers, fifos=given.fifos).plan(graph)
    least = {e: s.depth for e, s in SizeFifos(FifoPolicy.MINIMUM).run(plan.flow).sizes.items()}
    start = time.perf_counter()
    simulation = Simulation.of_design(plan.design)
    built = time.perf_counter()
    checked = verify(graph, plan.design, random_feeds(graph, 0, given.frames), stalls=())
    # Once more, only for the clock: what `verify` takes includes the simulator's run.
    inputs = [
        [
            np.zeros((stream.beats, stream.lanes), dtype=np.int64)
            for stream in plan.design.inputs.values()
        ]
    ] * given.frames
    ready = time.perf_counter()
    run = simulation.run(inputs)
    done = time.perf_counter()
    latency = run.cycles - sum(run.frame_cycles)
    macs = sum(row.macs for row in result.report.layers)
    cells = (
        given.model.stem,
        f"{given.wbits}/{given.abits}",
        f"{macs:,}",
        f"{plan.speed.interval:,}",
        f"{checked.interval:,}",
        f"{predict(plan.flow, least).interval:,}",
        f"{plan.speed.latency:,}",
        f"{latency:,}",
        f"{sum(plan.fifo_bits().values()):,}",
        f"{built - start:.0f}",
        f"{done - ready:.0f}",
        f"{checked.elements:,}",
    )
    print(HEADER)
    print("|" + " --- |" * len(cells))
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
