"""Runs a model with another program and times it; the protocol is that of `timer.c`.

    python peer_child.py (onnxruntime | openvino | nothing) MODEL THREADS

`nothing` measures what Python itself takes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np


def onnxruntime_run(model: str, threads: int) -> Callable[[], object]:
    """One inference of onnxruntime on random pixels."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    image = np.random.default_rng(1).random(port.shape, dtype=np.float32)
    return lambda: session.run(None, {port.name: image})


def openvino_run(model: str, threads: int) -> Callable[[], object]:
    """One inference of OpenVINO on random pixels, its tensors allocated beforehand."""
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Where the processor has bfloat16, OpenVINO would use it for float32 networks.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    shape = tuple(compiled.input(0).shape)
    image = np.random.default_rng(1).random(shape, dtype=np.float32)
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(image))
    return lambda: request.infer()


def main() -> None:
    """Follows the protocol until standard input ends."""
    engine, model, threads = sys.argv[1:]
    makers = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}
    run = makers[engine](model, int(threads)) if engine in makers else list
    run()
    print(f"first {engine}", flush=True)
    for line in sys.stdin:
        runs, times = int(line), []
        run()
        cpu = time.process_time()
        for _ in range(runs):
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
        cpu = (time.process_time() - cpu) / runs
        print(*(f"{seconds:.9f}" for seconds in times), "|", f"{cpu:.9f}", flush=True)


if __name__ == "__main__":
    main()
