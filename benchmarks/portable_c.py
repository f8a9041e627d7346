"""Time of the generated C against onnxruntime in float32, one thread each, in alternating runs.

    pip install -c constraints.txt '.[test]'
    python benchmarks/portable_c.py

Builds a U-Net of base width 16 for 256x256 images with random weights, compiles it, builds the C
with `gcc -O3` and nothing else, and prints both medians and their ratio.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from qcompile.options import CompileOptions
from qcompile.pipeline import compile_model

SIZE = 256
CLASSES = 1


class UNet:
    """Collects the nodes and weights of a U-Net: two 3x3 convolutions with ReLU on each level."""

    def __init__(self, base: int, depth: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.widths = [base << level for level in range(depth + 1)]

    def weight(self, name: str, *shape: int) -> str:
        """He-initialised weights; the second axis counts the inputs, as in a Conv."""
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        data = self.random.normal(0, deviation, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(data, name))
        return name

    def node(self, operator: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def double_conv(self, name: str, x: str, inputs: int, outputs: int) -> str:
        for index, channels in enumerate((inputs, outputs)):
            w = self.weight(f"{name}.w{index}", outputs, channels, 3, 3)
            x = self.node("Conv", f"{name}.conv{index}", x, w, pads=[1] * 4)
            x = self.node("Relu", f"{name}.relu{index}", x)
        return x

    def build(self) -> onnx.ModelProto:
        x, skips, inputs = "image", [], 1
        for level, width in enumerate(self.widths[:-1]):
            x = self.double_conv(f"down{level}", x, inputs, width)
            skips.append(x)
            x = self.node("MaxPool", f"pool{level}", x, kernel_shape=[2, 2], strides=[2, 2])
            inputs = width
        x = self.double_conv("bottom", x, inputs, self.widths[-1])
        for level in reversed(range(len(skips))):
            width = self.widths[level]
            w = self.weight(f"up{level}.w", 2 * width, width, 2, 2)
            x = self.node("ConvTranspose", f"up{level}", x, w, strides=[2, 2])
            x = self.node("Concat", f"concat{level}", skips[level], x, axis=1)
            x = self.double_conv(f"merge{level}", x, 2 * width, width)
        w = self.weight("head.w", CLASSES, self.widths[0], 1, 1)
        self.node("Conv", "logits", x, w)
        graph = helper.make_graph(
            self.nodes,
            "unet",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, SIZE, SIZE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES, SIZE, SIZE])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        return model


def onnxruntime_seconds(model: Path, runs: int) -> Iterator[float]:
    """Seconds of one inference, measured at each step of the iterator."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    image = np.random.default_rng(1).random((1, 1, SIZE, SIZE), dtype=np.float32)
    session.run(None, {"image": image})
    for _ in range(runs):
        begin = time.perf_counter()
        session.run(None, {"image": image})
        yield time.perf_counter() - begin


TIMER = """
#define _POSIX_C_SOURCE 199309L
#include "model.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Runs the network once for each line on standard input and prints the seconds it took. */
int main(void)
{
    uint8_t *image = calloc(MODEL_INPUT_ELEMENTS, 1);
    float *logits = malloc(MODEL_OUTPUT_ELEMENTS * sizeof *logits);
    void *arena = malloc(MODEL_ARENA_BYTES);
    int command;

    for (int i = 0; i < MODEL_INPUT_ELEMENTS; ++i) {
        image[i] = (uint8_t)(i * 7 % 251);
    }
    while ((command = getchar()) != EOF) {
        if (command == '\\n') {
            const double begin = seconds();
            if (model_run(image, logits, arena) != MODEL_OK) {
                return 1;
            }
            printf("%.6f\\n", seconds() - begin);
            fflush(stdout);
        }
    }
    return 0;
}
"""


def c_seconds(
    model: Path, folder: Path, wbits: str, abits: str, flags: list[str]
) -> Iterator[float]:
    """Seconds of one inference of the compiled network, measured at each step of the iterator."""
    result = compile_model(model, CompileOptions(wbits=wbits, abits=abits))
    result.artifacts.write(folder)
    header = (folder / "model.h").read_text()
    ports = re.findall(r"#define (MODEL_\w+)_ELEMENTS", header)
    timer = TIMER.replace("MODEL_INPUT", ports[0]).replace("MODEL_OUTPUT", ports[1])
    (folder / "timer.c").write_text(timer)
    program = folder / "timer"
    sources = [folder / "model.c", folder / "timer.c"]
    subprocess.run(["gcc", "-std=c99", *flags, "-o", program, *sources], check=True)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while True:
            process.stdin.write(b"\n")
            process.stdin.flush()
            yield float(process.stdout.readline())


def main() -> None:
    """Measures both and prints the ratio."""
    parser = argparse.ArgumentParser(
        description="Generated C against onnxruntime, one thread each."
    )
    parser.add_argument("--wbits", default="4")
    parser.add_argument("--abits", default="6")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cflags", default="-O3")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "unet16.onnx"
        onnx.save(UNet(16, options.depth, seed=0).build(), model)
        compiled = c_seconds(model, folder, options.wbits, options.abits, options.cflags.split())
        next(compiled)
        times = list(zip(onnxruntime_seconds(model, options.runs), compiled, strict=False))
        compiled.close()
    reference, ours = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"onnxruntime {onnxruntime.__version__}, float32: {reference * 1e3:8.1f} ms")
    print(f"C, {options.wbits}/{options.abits} bits, gcc {options.cflags}: {ours * 1e3:8.1f} ms")
    print(f"ratio: {ours / reference:.2f}")


if __name__ == "__main__":
    main()
