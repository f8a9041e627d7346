"""The other programs: onnxruntime and OpenVINO, where they are installed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from .rivals import Rival, Running

HERE = Path(__file__).resolve().parent
NATIVE, AVX2 = "all instructions", "AVX2"


@dataclass(frozen=True)
class Peers:
    """Rivals that could be had, and why others could not."""

    rivals: tuple[Rival, ...]
    missing: tuple[str, ...]


def make_peers(model: Path, threads: int, folder: Path) -> Peers:
    """onnxruntime and OpenVINO, float32 and int8, OpenVINO's int8 also with nothing beyond AVX2.

    Args:
        model: the float32 ONNX model.
        threads: of each inference.
        folder: where their models are kept and looked for.
    """
    rivals: list[Rival] = []
    missing: list[str] = []

    def add(engine: str, name: str, kind: str | None, source: Path) -> Path | None:
        if importlib.util.find_spec(engine) is None:
            missing.append(f"{name}: {engine} is not installed (pip install '.[bench]')")
            return None
        made = source
        if kind is not None:
            suffix = ".onnx" if engine == "onnxruntime" else ".xml"
            made = folder / f"{model.stem}-{kind}{suffix}"
            reason = "" if made.exists() else _make(kind, source, made)
            if reason:
                missing.append(f"{name}: {reason}")
                return None
        rivals.append(_rival(engine, name, made, threads))
        return made

    add("onnxruntime", "onnxruntime fp32", None, model)
    qdq = add("onnxruntime", "onnxruntime int8 (QDQ)", "onnxruntime-int8", model)
    add("openvino", "OpenVINO fp32", "openvino-fp32", model)
    int8 = add("openvino", "OpenVINO int8 (NNCF)", "openvino-int8", model)
    if int8 is None and qdq is not None:
        int8 = add("openvino", "OpenVINO int8 (onnxruntime's QDQ)", "openvino-qdq", qdq)
    if int8 is not None:
        capped = rivals[-1]
        rivals.append(
            replace(
                capped,
                name=f"{capped.name}, capped",
                instructions=AVX2,
                environment={"ONEDNN_MAX_CPU_ISA": "AVX2"},
            )
        )
    return Peers(tuple(rivals), tuple(missing))


def _make(kind: str, source: Path, destination: Path) -> str:
    """Makes a model; returns why it could not."""
    command = [sys.executable, str(HERE / "peer_models.py"), kind, str(source), str(destination)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and destination.exists():
        return ""
    return (done.stderr.strip().splitlines() or ["no model was written"])[-1]


def _rival(engine: str, name: str, model: Path, threads: int) -> Rival:
    files = [model, *([model.with_suffix(".bin")] if engine == "openvino" else [])]
    return Rival(
        name=name,
        instructions=NATIVE,
        command=(sys.executable, str(HERE / "peer_child.py"), engine, str(model), str(threads)),
        artefact_bytes=sum(file.stat().st_size for file in files),
        install_bytes=install_bytes(engine),
    )


def python_alone(starts: int) -> tuple[float, int]:
    """What a peer's process is without the peer: Python and numpy.

    Returns:
        Seconds until it has started, and its largest resident size in bytes.
    """
    command = (sys.executable, str(HERE / "peer_child.py"), "nothing", "", "1")
    seconds, peaks = [], []
    for _ in range(starts):
        process = Running(Rival("Python", NATIVE, command), threads=1)
        seconds.append(process.cold_seconds)
        peaks.append(process.peak_bytes())
        process.close()
    return median(seconds), max(peaks)


def versions() -> dict[str, str]:
    """Installed versions of the peers and of what quantizes for them."""
    found = {}
    for package in ("onnxruntime", "openvino", "nncf"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def install_bytes(package: str) -> int:
    """Size of an installed package with everything it requires, in bytes."""
    seen: set[str] = set()
    waiting = [package]
    total = 0
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            total += path.stat().st_size if path.is_file() else 0
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                waiting.append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    return total
