"""The node LocalAttention2d of the domain `qcompile`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from qcompile.errors import QCompileError
from qcompile.ops import LocalAttention2d
from qcompile.sim.executor import Executor
from qcompile.types import Array
from tests.importer.models import build, images, imported, kinds

SHAPES = {"q": (1, 4, 5, 6), "k": (1, 4, 5, 6), "v": (1, 4, 5, 6)}
RELATIVE = np.random.default_rng(0).standard_normal((4, 3, 3)).astype(np.float32)


def node(*more: str, **attributes: Any) -> Any:
    attributes = {"kernel_shape": [3, 3], **attributes}
    inputs = ["q", "k", "v", *more]
    return helper.make_node("LocalAttention2d", inputs, ["y"], domain="qcompile", **attributes)


def attention(
    q: Array, k: Array, v: Array, relative: Array, heads: int, pads: tuple[int, ...], scale: float
) -> Array:
    """The definition, pixel by pixel, in float64."""
    (_, channels, height, width), (_, values, *size) = q.shape, v.shape
    depth, wide = channels // heads, values // heads
    result = np.zeros((1, values, height, width))
    for y, x, head in np.ndindex(height, width, heads):
        own = slice(head * depth, (head + 1) * depth)
        scores, seen = [], []
        for ky, kx in np.ndindex(*relative.shape[1:]):
            place = (y - pads[0] + ky, x - pads[1] + kx)
            inside = all(0 <= p < n for p, n in zip(place, size, strict=True))
            key = k[0, own, *place] if inside else np.zeros(depth)
            scores.append(scale * np.dot(q[0, own, y, x], key + relative[own, ky, kx]))
            group = slice(head * wide, (head + 1) * wide)
            seen.append(v[0, group, *place] if inside else np.zeros(wide))
        powers = np.exp(np.array(scores) - max(scores))
        result[0, head * wide : (head + 1) * wide, y, x] = powers / powers.sum() @ np.array(seen)
    return result


@pytest.mark.parametrize(
    ("attributes", "heads", "pads"),
    [
        ({}, 1, (1, 1)),
        ({"heads": 2, "scale": 0.5}, 2, (1, 1)),
        ({"mode": "per_channel"}, 4, (1, 1)),
        ({"pads": [2, 0, 0, 2]}, 1, (2, 0)),
    ],
)
def test_what_it_computes(attributes: dict[str, Any], heads: int, pads: tuple[int, int]) -> None:
    shapes = {**SHAPES, "v": (1, 8, 5, 6)} if heads < 4 else SHAPES
    model = build([node("r", **attributes)], shapes, constants={"r": RELATIVE})
    graph = imported(model)
    assert kinds(graph) == ["LocalAttention2d"]
    feeds = images(graph)
    scale = attributes.get("scale", 1.0)
    q, k, v = (feeds[name] for name in "qkv")
    expected = attention(q, k, v, RELATIVE, heads, pads, scale)
    np.testing.assert_allclose(Executor(graph).run(feeds)["y"], expected, atol=1e-5)


def test_embeddings_broadcast_and_may_be_left_out() -> None:
    column = RELATIVE[:, :1]
    graph = imported(build([node("r")], SHAPES, constants={"r": column}))
    (op,) = graph.ops
    np.testing.assert_array_equal(graph.constants[op.inputs[3]], column.repeat(3, axis=1))
    graph = imported(build([node(kernel_shape=[1, 5])], SHAPES))
    (op,) = graph.ops
    assert isinstance(op, LocalAttention2d)
    assert (op.pads_begin, op.pads_end) == ((0, 2), (0, 2))
    assert not graph.constants[op.inputs[3]].any()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"kernel_shape": [3]}, "kernel_shape"),
        ({"kernel_shape": [1 << 20, 1 << 20]}, "kernel_shape"),
        ({"pads": [1, 1]}, "pads"),
        ({"pads": [1, 1, 1, 2]}, "queries of shape"),
        ({"heads": 3}, "multiples of 3 heads"),
        ({"heads": 0}, "multiples of 0 heads"),
        ({"mode": "raw_view"}, "mode 'raw_view'"),
        ({"mode": "per_channel", "heads": 2}, "not 2 heads"),
        ({"scale": -1.0}, "scale"),
    ],
)
def test_what_does_not_fit_is_said(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(QCompileError, match=message):
        imported(build([node(**attributes)], SHAPES))


def test_embeddings_that_do_not_fit_are_said() -> None:
    with pytest.raises(QCompileError, match="do not broadcast"):
        imported(build([node("r")], SHAPES, constants={"r": RELATIVE[:3]}))
    with pytest.raises(QCompileError, match="must be real numbers"):
        imported(build([node("r")], SHAPES, constants={"r": RELATIVE.astype(np.int64)}))
    with pytest.raises(QCompileError, match="computed at run time"):
        imported(build([node("q")], SHAPES))
