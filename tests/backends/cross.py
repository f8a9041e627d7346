"""Other machines: emitted C compiled for them and run in qemu."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcompile.backends.c.backend import CProgram
from qcompile.backends.c.names import c_type
from qcompile.types import Array

FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")
"""What users would give: nothing that names instructions or a language standard."""
SECONDS = 600

Runs = Sequence[tuple[CProgram, Mapping[str, Array]]]


@dataclass(frozen=True)
class Machine:
    """A processor.

    Attributes:
        compiler: command and flags.
        emulator: command and flags; the image and two file names follow.
        instructions: what programs say that they use there.
        board: the image runs on a bare processor, and reaches files through the debugger.
    """

    compiler: tuple[str, ...]
    emulator: tuple[str, ...]
    instructions: str
    board: bool = False

    @property
    def missing(self) -> str:
        """What is not installed: tools, or the compiler's C library."""
        tools = [tool for tool in (self.compiler[0], self.emulator[0]) if not shutil.which(tool)]
        if tools:
            return " and ".join(tools)
        asked = [*self.compiler, "-E", "-x", "c", "-"]
        done = subprocess.run(asked, input="#include <stdio.h>", capture_output=True, text=True)
        return "" if done.returncode == 0 else f"the C library of {self.compiler[0]}"

    def run(self, runs: Runs, folder: Path) -> list[dict[str, Array]]:
        """Outputs of each program. Every tensor and the arena end where memory ends."""
        sources = []
        with (folder / "inputs.bin").open("wb") as inputs:
            for program, feeds in runs:
                entry, graph = program.layout.entry, program.layout.graph
                program.artifacts.write(folder / entry)
                sources.append(f"{entry}/{entry}.c")
                for value in graph.inputs:
                    storage = graph.types[value].element.storage
                    inputs.write(np.ascontiguousarray(feeds[value], storage).tobytes())
        (folder / "runner.c").write_text(runner_source([program for program, _ in runs]))
        self.execute(["runner.c", *sources], folder)
        data = (folder / "outputs.bin").read_bytes()
        results = []
        position = 0
        for program, _ in runs:
            found = {}
            for value in dict.fromkeys(program.layout.graph.outputs):
                kind = program.layout.graph.types[value]
                array = np.frombuffer(data, kind.element.storage, kind.size, position)
                position += array.nbytes
                found[value] = array.reshape(kind.shape)
            results.append(found)
        assert position == len(data)
        return results

    def execute(self, sources: Sequence[str], folder: Path) -> str:
        """Compiles files of `folder`, runs the image there, and returns what it prints."""
        command = [*self.compiler, *FLAGS, "-o", "image", *sources]
        if self.board:
            (folder / "vectors.c").write_text(VECTOR_TABLE)
            command += ["vectors.c", "--specs=rdimon.specs", "-Wl,--section-start=.vectors=0"]
        _run([*command, "-lm"], folder)
        if not self.board:
            return _run([*self.emulator, "./image", "inputs.bin", "outputs.bin"], folder)
        semihosting = "enable=on,target=native,arg=image,arg=inputs.bin,arg=outputs.bin"
        image = ("-semihosting-config", semihosting, "-kernel", "image")
        return _run([*self.emulator, *image], folder)


def board(core: str, name: str) -> Machine:
    """A Cortex-M processor on one of Arm's boards with 4 MB of memory at address 0."""
    compiler = ("arm-none-eabi-gcc", f"-mcpu={core}", "-mthumb", "-mfloat-abi=soft")
    quiet = ("-nographic", "-monitor", "none", "-serial", "none")
    emulator = ("qemu-system-arm", "-M", name, *quiet)
    return Machine(compiler, emulator, "portable C", board=True)


def aarch64(processor: str, instructions: str, *flags: str) -> Machine:
    """A 64-bit Arm processor with Linux."""
    compiler = ("aarch64-linux-gnu-gcc", "-static", *flags)
    return Machine(compiler, ("qemu-aarch64", "-cpu", processor), instructions)


ARM32 = Machine(("arm-linux-gnueabihf-gcc", "-static"), ("qemu-arm",), "portable C")

MACHINES: Mapping[str, Machine] = {
    "aarch64": aarch64("cortex-a53", "NEON"),
    "aarch64-newer": aarch64("cortex-a76", "NEON with dot products"),
    "aarch64-dotprod": aarch64("cortex-a76", "NEON with dot products", "-march=armv8.2-a+dotprod"),
    "aarch64-portable": aarch64("cortex-a53", "portable C", "-DQCOMPILE_PORTABLE"),
    "armv7": ARM32,
    "cortex-m3": board("cortex-m3", "mps2-an385"),
    "cortex-m4": board("cortex-m4", "mps2-an386"),
    "cortex-m7": board("cortex-m7", "mps2-an500"),
}

VECTOR_TABLE = """\
/* What a bare processor reads at address 0: the stack, and where to start. */
extern void _mainCRTStartup(void);

static void stop(void)
{
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))0x20400000, _mainCRTStartup, stop, stop, stop, stop, stop
};
"""

RUNNER = """\
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Memory that ends exactly where the next page faults, or where bytes are watched. */
typedef struct {
    unsigned char *base, *data;
    size_t mapped, size, spare;
} region;

#ifdef __linux__
#include <sys/mman.h>

static region take(size_t size, size_t alignment)
{
    const size_t page = 65536, length = (size + alignment - 1) / alignment * alignment;
    const size_t mapped = (length + page - 1) / page * page + page;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    region r = { mmap(0, mapped, PROT_READ | PROT_WRITE, flags, -1, 0), 0, mapped, size, 0 };
    if (r.base == MAP_FAILED || mprotect(r.base + mapped - page, page, PROT_NONE) != 0) {
        exit(3);
    }
    memset(r.base, 0xA5, mapped - page);
    r.data = r.base + mapped - page - length;
    r.spare = length - size;
    return r;
}

static void drop(region r)
{
    munmap(r.base, r.mapped);
}
#else
static region take(size_t size, size_t alignment)
{
    const size_t watched = 64;
    region r = { malloc(size + alignment + watched), 0, size + alignment + watched, size, watched };
    if (r.base == NULL) {
        exit(3);
    }
    memset(r.base, 0xA5, r.mapped);
    r.data = r.base + (alignment - (uintptr_t)r.base % alignment) % alignment;
    return r;
}

static void drop(region r)
{
    free(r.base);
}
#endif

static void check(region r, const char *entry)
{
    for (unsigned char *p = r.base; p < r.data; ++p) {
        if (*p != 0xA5) {
            printf("%s: written before a tensor\\n", entry);
            exit(6);
        }
    }
    for (size_t i = 0; i < r.spare; ++i) {
        if (r.data[r.size + i] != 0xA5) {
            printf("%s: written behind a tensor\\n", entry);
            exit(6);
        }
    }
    drop(r);
}

"""


def runner_source(programs: Sequence[CProgram]) -> str:
    """A C program that runs all programs: arguments are the files of inputs and outputs."""
    lines = []
    for program in programs:
        lines.append(f'#include "{program.layout.entry}/{program.layout.entry}.h"')
    lines.append(RUNNER)
    for program in programs:
        lines += _one(program)
    lines += [
        "int main(int argc, char **argv)",
        "{",
        '    FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL;',
        '    FILE *out = argc == 3 ? fopen(argv[2], "wb") : NULL;',
        "    if (in == NULL || out == NULL) {",
        "        return 2;",
        "    }",
        *(f"    try_{program.layout.entry}(in, out);" for program in programs),
        "    return fclose(out) == 0 ? 0 : 5;",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _one(program: CProgram) -> list[str]:
    entry, graph = program.layout.entry, program.layout.graph
    outputs = list(dict.fromkeys(graph.outputs))
    lines = [f"static void try_{entry}(FILE *in, FILE *out)", "{"]
    names = []
    for index, value in enumerate([*graph.inputs, *outputs]):
        kind = graph.types[value]
        ctype, name = c_type(kind.element), f"r{index}"
        names.append(f"({ctype} *)(void *){name}.data")
        lines.append(f"    region {name} = take({kind.storage_bytes}, sizeof({ctype}));")
        if index < len(graph.inputs):
            lines.append(f"    if (fread({name}.data, 1, {name}.size, in) != {name}.size) {{")
            lines += ["        exit(4);", "    }"]
    macro = entry.upper()
    lines += [
        f"    region arena = take({macro}_ARENA_BYTES, {macro}_ARENA_ALIGNMENT);",
        f"    if ({entry}_run({', '.join(names)}, arena.data) != {macro}_OK) {{",
        f'        printf("{entry} failed\\n");',
        "        exit(4);",
        "    }",
    ]
    for index in range(len(graph.inputs), len(names)):
        lines.append(f"    fwrite(r{index}.data, 1, r{index}.size, out);")
    lines += [f'    check({name}, "{entry}");' for name in [*map("r{}".format, range(len(names)))]]
    return [*lines, f'    check(arena, "{entry}");', "}", ""]


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[:4000]
    return done.stdout
