"""Speed of programs that qcompile emitted, side by side, as Markdown or JSON.

    qcompile net.onnx --calib images/ --wbits 4 --abits 6 -o a
    qcompile net.onnx --calib images/ --wbits 4 --abits 6 --prune-flops 50% -o b
    python benchmarks/folders.py a b
    python benchmarks/folders.py a b --json times.json

Each folder holds the C of a network with one input and one output. It is built with `gcc -O3`, and
runs on one thread in a process of its own; the programs take turns, as in `cpu.py`. Random pixels.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cpu_bench.compiled import BUILDS, Compiled, build, port_macros
from cpu_bench.networks import Setting
from cpu_bench.rivals import Measured, Rival, measure
from cpu_bench.tables import table

SOURCES = ("model.c", "model.h", "model_weights.h")
TYPES: dict[str, np.dtype[Any]] = {
    "uint8_t": np.dtype("u1"),
    "int8_t": np.dtype("i1"),
    "int16_t": np.dtype("i2"),
    "int32_t": np.dtype("i4"),
    "float": np.dtype("f4"),
}


def parse() -> argparse.Namespace:
    """The command line; ends the program where a folder has no C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, help="what qcompile wrote")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch-seconds", type=float, default=0.25)
    parser.add_argument("--json", type=Path, help="also write seconds here")
    options = parser.parse_args()
    for folder in options.folders:
        if not (folder / SOURCES[0]).is_file():
            parser.error(f"{folder}: has no {SOURCES[0]}; give folders that qcompile wrote")
    return options


def rival(folder: Path, work: Path) -> Rival:
    """The program of one folder, built in `work`.

    Raises:
        ValueError: it has several inputs or outputs.
    """
    work.mkdir()
    for name in SOURCES:
        if (folder / name).exists():
            shutil.copy(folder / name, work / name)
    header = (work / "model.h").read_text()
    flags = dict(flag[2:].split("=", 1) for flag in port_macros(header))
    count = re.search(rf"#define {flags['INPUT_ELEMENTS']} (\d+)", header)
    if count is None:
        raise ValueError(f"{folder}: model.h does not say how many elements the input has")
    rng = np.random.default_rng(1)
    kind = TYPES[flags["INPUT_TYPE"]]
    pixels = rng.random(int(count[1])) * (1 if kind.kind == "f" else 2 ** (8 * kind.itemsize - 1))
    compiled = Compiled(Setting(folder.name, folder), work, macs=0, share=0.0)
    compiled.pixels.write_bytes(pixels.astype(kind).tobytes())
    program = build(compiled, BUILDS[0], threads=1)
    return Rival(str(folder), BUILDS[0].instructions, (str(program), str(compiled.pixels)))


def timed(folders: Sequence[Path], rounds: int, batch_seconds: float) -> list[Measured]:
    """All folders, measured in turns."""
    with tempfile.TemporaryDirectory(prefix="qcompile-") as name:
        rivals = [rival(folder, Path(name) / str(index)) for index, folder in enumerate(folders)]
        return measure(rivals, 1, rounds, batch_seconds, cold_starts=0)


def main() -> None:
    """Measures, prints, and writes where asked to."""
    options = parse()
    found = timed(options.folders, options.rounds, options.batch_seconds)
    first = found[0].median
    rows = [
        (
            item.rival.name,
            f"{item.median * 1e3:.2f}",
            f"{item.least * 1e3:.2f}",
            f"{first / item.median:.2f}",
        )
        for item in found
    ]
    print(table(("folder", "median ms", "min ms", "times as fast as the first"), rows))
    if options.json:
        plain = [
            {"folder": item.rival.name, "median": item.median, "least": item.least}
            for item in found
        ]
        options.json.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
