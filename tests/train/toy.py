"""A toy task: bright discs on noise, and a small network that sees them badly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcompile.types import Array

SIZE = 16


def discs(count: int, seed: int) -> tuple[Array, Array]:
    """Images [count, SIZE, SIZE] uint8 and their masks."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images = np.empty((count, SIZE, SIZE), np.uint8)
    masks = np.empty((count, SIZE, SIZE), np.uint8)
    for index in range(count):
        row, column = rng.uniform(4, SIZE - 4, 2)
        masks[index] = np.hypot(rows - row, columns - column) < rng.uniform(2.5, 4)
        pixels = 70 + 90 * masks[index] + rng.normal(0, 30, (SIZE, SIZE))
        images[index] = np.clip(pixels, 0, 255)
    return images, masks


def write_data(path: Path, train: int = 16, val: int = 6) -> Path:
    train_x, train_y = discs(train, 1)
    val_x, val_y = discs(val, 2)
    np.savez(path, train_x=train_x, train_y=train_y, val_x=val_x, val_y=val_y)
    return path


def write_model(path: Path, channels: int = 2, seed: int = 5) -> Path:
    """Three convolutions, the first with a norm behind its ReLU; `channels` logits."""
    rng = np.random.default_rng(seed)
    shapes = {
        "w1": (6, 1, 3, 3),
        "b1": (6,),
        "w2": (6, 6, 3, 3),
        "b2": (6,),
        "w3": (channels, 6, 1, 1),
        "b3": (channels,),
    }
    data = {
        name: rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        if name[0] == "w"
        else rng.normal(0, 0.05, shape)
        for name, shape in shapes.items()
    }
    data |= {"gain": rng.uniform(0.5, 1.5, 6), "mean": rng.normal(0, 0.1, 6)}
    data |= {"shift": rng.normal(0, 0.3, 6), "variance": rng.uniform(0.5, 1, 6)}
    same: dict[str, Any] = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "conv1", **same),
        helper.make_node("Relu", ["a"], ["r"], "relu1"),
        helper.make_node(
            "BatchNormalization", ["r", "gain", "shift", "mean", "variance"], ["n"], "norm1"
        ),
        helper.make_node("Conv", ["n", "w2", "b2"], ["c"], "conv2", **same),
        helper.make_node("Relu", ["c"], ["d"], "relu2"),
        helper.make_node("Conv", ["d", "w3", "b3"], ["y"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, SIZE, SIZE])],
        [numpy_helper.from_array(item.astype(np.float32), name) for name, item in data.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path
