"""What was measured, as Markdown."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .compiled import PORTABLE, LayerTime
from .rivals import Measured

OURS = "qcompile"
ONE_THREAD = "one thread"
"""In the name of what runs on one thread beside others on two."""
FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_vpopcntdq", "asimd", "asimddp")


@dataclass(frozen=True)
class Run:
    """All rivals of one network at one number of threads."""

    network: str
    threads: int
    macs: int
    measured: tuple[Measured, ...]

    def find(self, *words: str, without: str = "\n") -> Measured | None:
        """The first rival whose name has all the words."""
        for item in self.measured:
            name = item.rival.name
            if all(word in name for word in words) and without not in name:
                return item
        return None


def row(cells: Iterable[object]) -> str:
    """One line of a table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], texts: int = 1) -> str:
    """A table whose first columns are text and whose others are numbers."""
    marks = ["---" if index < texts else "---:" for index in range(len(head))]
    return "\n".join([row(head), row(marks), *map(row, rows)]) + "\n"


def results(run: Run) -> str:
    """The table of one run. A rival is compared with the fastest peer that may use the same
    instructions; portable C with the slowest network of all, onnxruntime in float32."""
    rows = []
    for item in sorted(run.measured, key=lambda item: item.median):
        peer = best_peer(run, item)
        ratio = "" if peer is None else f"{peer.median / item.median:.2f}"
        rows.append(
            (
                item.rival.name,
                f"{item.median * 1e3:.2f}",
                f"{item.least * 1e3:.2f}",
                f"{median(item.cpu) * 1e3:.2f}",
                f"{run.macs / item.median / 1e9:.0f}",
                ratio,
                f"{item.peak_bytes / 1e6:.1f}",
                f"{item.rival.artefact_bytes / 1e6:.2f}",
                f"{item.rival.install_bytes / 1e6:.0f}",
                f"{median(item.cold) * 1e3:.1f}" if item.cold else "",
            )
        )
    head = (
        "program",
        "median ms",
        "min ms",
        "CPU ms",
        "GMAC/s",
        "times as fast as the best peer",
        "peak MB",
        "artefact MB",
        "install MB",
        "cold start ms",
    )
    return table(head, rows)


def best_peer(run: Run, ours: Measured) -> Measured | None:
    """What one of ours is compared with; None for peers, and where there is no peer."""
    if not ours.rival.name.startswith(OURS):
        return None
    if ours.rival.instructions == PORTABLE:
        return run.find("onnxruntime fp32")
    peers = [
        item
        for item in run.measured
        if not item.rival.name.startswith(OURS)
        and item.rival.instructions == ours.rival.instructions
    ]
    return min(peers, key=lambda item: item.median, default=None)


def layers(times: Sequence[LayerTime]) -> str:
    """Where the time goes in one program."""
    total = sum(item.seconds for item in times)
    rows = [
        (
            f"{item.operator} {item.name}",
            item.kernel,
            f"{item.macs / 1e6:.1f}" if item.macs else "",
            f"{item.seconds * 1e6:.0f}",
            f"{item.seconds / total:.1%}",
            f"{item.macs / item.seconds / 1e9:.0f}" if item.macs and item.seconds else "",
        )
        for item in times
    ]
    macs = sum(item.macs for item in times)
    sums = f"{macs / 1e6:.1f}", f"{total * 1e6:.0f}", "100%", f"{macs / total / 1e9:.0f}"
    head = ("layer", "kernel", "MMAC", "µs", "share", "GMAC/s")
    return table(head, [*rows, ("all", "", *sums)], texts=2)


@dataclass(frozen=True)
class Target:
    """How much faster than a peer one of our builds shall be, one thread both."""

    network: str
    setting: str
    ours: str
    peer: str
    must: float
    aim: float | None = None


INT8, CAPPED, FLOAT = "OpenVINO int8", "capped", "onnxruntime fp32"
TARGETS = (
    Target("S", "w4a6", "VNNI", INT8, 1.3, 1.6),
    Target("M", "w4a6", "VNNI", INT8, 1.1, 1.25),
    Target("S", "w4a6", "AVX2", CAPPED, 1.2, 1.5),
    Target("S", "ternary", "VNNI", INT8, 1.8, 2.5),
    Target("S", "ternary", "AVX2", CAPPED, 2.2, 3.0),
    Target("S", "w4a6", "portable", FLOAT, 1 / 3.2),
    Target("S", "ternary", "portable", FLOAT, 1.0),
)


def targets(runs: Sequence[Run]) -> str:
    """The ratios that matter, with what they must be and what is aimed at."""
    rows: list[tuple[str, ...]] = []

    def add(
        text: str, value: float, must: float, aim: float | None = None, cpu: float | None = None
    ) -> None:
        missed = "missed" if value < must else "met"
        reached = "aim" if aim is not None and value >= aim else missed
        shown = [f"{number:.2f}" if number else "" for number in (value, cpu, must, aim)]
        rows.append((text, *shown, reached))

    single = {run.network: run for run in runs if run.threads == 1}
    for target in TARGETS:
        run = single.get(target.network)
        ours = run and run.find(OURS, target.setting, target.ours)
        without = "capped" if target.peer == INT8 else "\n"
        peer = run and run.find(target.peer, without=without)
        if ours and peer:
            text = (
                f"{target.network} {target.setting}, {target.ours}: faster than {peer.rival.name}"
            )
            add(text, peer.median / ours.median, target.must, target.aim, _cpu(peer, ours))
    for run in runs:
        alone = run.find(OURS, "w4a6", ONE_THREAD)
        both = run.find(OURS, "w4a6", without=ONE_THREAD)
        if run.network == "M" and run.threads == 2 and alone and both:
            add("M w4a6: faster with two threads", alone.median / both.median, 1.7)
    for run in single.values():
        ours = run.find(OURS, "w4a6")
        vino = run.find(INT8, without="capped")
        if ours and vino:
            ratio = vino.peak_bytes / ours.peak_bytes
            add(f"{run.network} w4a6: less memory than {vino.rival.name}", ratio, 4)
        for name in ("onnxruntime fp32", "onnxruntime int8"):
            peer = run.find(name)
            if ours and peer and ours.cold and peer.cold:
                ratio = median(peer.cold) / median(ours.cold)
                add(f"{run.network} w4a6: faster cold start than {peer.rival.name}", ratio, 10)
    return table(("ratio", "of medians", "of CPU times", "must", "aim", "result"), rows)


def _cpu(peer: Measured, ours: Measured) -> float:
    """Of one run each; other work on the machine hardly changes it."""
    return min(peer.cpu) / min(ours.cpu)


BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def written_between(page: str, text: str) -> str:
    """The page with the text between its marks, or behind it where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after if begin else chr(10)}"


def machine(versions: Mapping[str, str]) -> str:
    """The machine by its features, and the versions of everything measured."""
    lines = []
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    features = [feature for feature in FEATURES if feature in flags]
    caches = []
    for place in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        parts = [(place / part).read_text().strip() for part in ("level", "type", "size")]
        if parts[1] != "Instruction":
            caches.append(f"L{parts[0]} {parts[2]}")
    lines.append(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores used, "
        f"{', '.join(features) or 'no vector extensions known'}; {', '.join(caches)}."
    )
    compiler = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True)
    found = [f"{name} {version}" for name, version in versions.items()]
    lines.append(f"{compiler.stdout.splitlines()[0]}; {', '.join(found) or 'no peers'}.")
    return "\n".join(lines) + "\n"
