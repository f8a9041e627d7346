"""Networks and pools for which it is known what is uncertain and what is alike.

Pixels have five channels. The networks look at the first two for their probability, and disagree by
the second; the deepest features are the means of the other three.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcompile.types import Array

SIZE = 8
CHANNELS = 5
DEEP = 3
FEATURES = "deep"


def save_member(path: Path, weight: float, classes: int = 1, deep: int = DEEP) -> Path:
    """logit = 4 * x0 - 2 + weight * x1; with two classes the first has the logit 0.

    Args:
        path: to write.
        weight: of what the networks disagree about.
        classes: channels of the output.
        deep: channels of the deepest features.
    """
    head = np.zeros((classes, CHANNELS + deep, 1, 1), np.float32)
    head[-1, 0], head[-1, 1] = 4, weight
    bias = np.zeros(classes, np.float32)
    bias[-1] = -2
    squeeze = np.zeros((deep, CHANNELS, 1, 1), np.float32)
    squeeze[np.arange(deep), 2 + np.arange(deep) % DEEP] = 1
    constants = {
        "squeeze": squeeze,
        "head": head,
        "bias": bias,
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "squeeze"], ["squeezed"], "squeeze", strides=[2, 2]),
        helper.make_node("Relu", ["squeezed"], [FEATURES], "relu"),
        helper.make_node("Resize", [FEATURES, "", "scales"], ["up"], "up", mode="nearest"),
        helper.make_node("Concat", ["x", "up"], ["both"], "both", axis=1),
        helper.make_node("Conv", ["both", "head", "bias"], ["y"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes, SIZE, SIZE])],
        [numpy_helper.from_array(data, name) for name, data in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


def ensemble(folder: Path, weights: Sequence[float] = (0.0, 3.0, 6.0)) -> list[Path]:
    """Member i at `folder`/m<i>.onnx."""
    return [save_member(folder / f"m{at}.onnx", weight) for at, weight in enumerate(weights)]


def pool(doubts: Sequence[int], kinds: Sequence[Sequence[int]], seed: int = 0) -> Array:
    """Images uint8 [N, CHANNELS, SIZE, SIZE].

    Args:
        doubts: for each image its second channel: the larger, the more the networks disagree.
        kinds: for each image its last three channels: what it looks like.
        seed: of the first channel, which all images share.
    """
    images = np.zeros((len(doubts), CHANNELS, SIZE, SIZE), np.uint8)
    images[:, 0] = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE))
    for image, doubt, kind in zip(images, doubts, kinds, strict=True):
        image[1] = doubt
        image[2:] = np.array(kind)[:, None, None]
    return images


def probabilities(image: Array, weight: float) -> Array:
    """What a member says of an image, float64 [SIZE, SIZE]."""
    real = image.astype(np.float64) / 255
    return np.asarray(1 / (1 + np.exp(-(4 * real[0] - 2 + weight * real[1]))))
