"""Inputs that are made up, where there are no images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qcompile.boundary import channel_axis
from qcompile.feeds import Feed
from qcompile.graph import Graph
from qcompile.types import Shape

GENERATED_IMAGES = 4


def generated_feeds(
    shapes: Mapping[str, Shape], seed: int, count: int = GENERATED_IMAGES
) -> list[Feed]:
    """Inputs made up where there are no calibration data: blocks of random grey with noise, uint8.

    Neighbouring pixels resemble each other as in real images, so that smoothing layers see more
    than the mean; no promise of accuracy follows from them.
    """
    generator = np.random.default_rng(seed)
    result: list[Feed] = []
    for _ in range(count):
        feed = {}
        for name, shape in shapes.items():
            axis = channel_axis(shape)
            coarse = [size if i == axis else -(-size // 16) for i, size in enumerate(shape)]
            pixels = generator.integers(0, 256, coarse, dtype=np.int16)
            for i, size in enumerate(shape):
                if i not in (0, axis):
                    pixels = pixels.repeat(16, axis=i).take(range(size), axis=i)
            noise = generator.integers(-24, 25, shape, dtype=np.int16)
            feed[name] = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        result.append(feed)
    return result


def random_feeds(graph: Graph, seed: int, count: int = 2) -> list[Feed]:
    """Inputs without any structure for the compiled graph: every pixel value, floats of -4 to 4."""
    generator = np.random.default_rng((seed, 1))
    return [
        {
            name: generator.uniform(-4, 4, graph.types[name].shape).astype(np.float32)
            if graph.types[name].is_float
            else generator.integers(0, 256, graph.types[name].shape).astype(np.uint8)
            for name in graph.inputs
        }
        for _ in range(count)
    ]
