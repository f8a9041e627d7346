"""Local attention as torch exports it when it is written with `unfold`: recognised, or left."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.ops import LocalAttention2d
from qcompile.passes.recognise_local_attention import RecogniseLocalAttention
from qcompile.sim.executor import Executor

Unfolding = Literal["slices", "im2col", "einsum", "matmul", "raw_view"]


class Fan(nn.Module):
    """Attention over 3 x 3 windows; `slices` pads the input, all others keys and values."""

    def __init__(self, unfolding: Unfolding, per_channel: bool, heads: int, scale: float) -> None:
        super().__init__()
        self.unfolding, self.heads, self.scale = unfolding, heads, scale
        self.per_channel = per_channel
        self.joint = nn.Conv2d(3, 24, 1, bias=False)
        self.rel_h = nn.Parameter(torch.randn(4, 1, 1, 3, 1))
        self.rel_w = nn.Parameter(torch.randn(4, 1, 1, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        if self.unfolding in ("im2col", "einsum", "matmul"):
            q, k, v = self.joint(x).chunk(3, dim=1)
            k, v = (
                functional.unfold(item, 3, padding=1)
                .reshape(batch, 8, 3, 3, height, width)
                .permute(0, 1, 4, 5, 2, 3)
                for item in (k, v)
            )
        else:
            q = self.joint(x)[:, :8]
            _, k, v = self.joint(functional.pad(x, [1, 1, 1, 1])).chunk(3, dim=1)
            k, v = (item.unfold(2, 3, 1).unfold(3, 3, 1) for item in (k, v))
        rows, columns = k.split(4, dim=1)
        k = torch.cat((rows + self.rel_h, columns + self.rel_w), dim=1)
        if self.unfolding == "raw_view":
            # The order of memory is another one: what is a window here is none of the image's.
            k, v = (item.permute(0, 1, 4, 5, 2, 3).contiguous() for item in (k, v))
        k, v = (item.reshape(batch, self.heads, -1, height, width, 9) for item in (k, v))
        if self.unfolding == "einsum":
            q = q.reshape(batch, self.heads, -1, height, width)
            weights = torch.einsum("bgchw,bgchwk->bghwk", q, k) * self.scale
            total: Tensor = torch.einsum("bghwk,bgchwk->bgchw", torch.softmax(weights, -1), v)
            return total.reshape(batch, 8, height, width)
        if self.unfolding == "matmul":
            q = q.reshape(batch, self.heads, -1, height, width, 1).permute(0, 1, 3, 4, 5, 2)
            weights = (q @ k.permute(0, 1, 3, 4, 2, 5)) * self.scale
            total = torch.softmax(weights, -1) @ v.permute(0, 1, 3, 4, 5, 2)
            return total.permute(0, 1, 5, 2, 3, 4).reshape(batch, 8, height, width)
        scores = q.reshape(batch, self.heads, -1, height, width, 1) * k
        if not self.per_channel:
            scores = scores.sum(2, keepdim=True)
        weights = torch.softmax(scores * self.scale, -1)
        total = (weights * v).sum(-1)
        return total.reshape(batch, 8, height, width)


def imported(model: nn.Module, x: Tensor, path: Path, unfolding: Unfolding) -> Graph:
    # Tensor.unfold needs static shapes, which torch loses behind the Pad of later opsets.
    opset = 10 if unfolding in ("slices", "raw_view") else 17
    torch.onnx.export(
        model.eval(), (x,), path, dynamo=False, opset_version=opset, input_names=["x"]
    )
    return import_model(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("unfolding", "per_channel", "heads", "scale"),
    [
        ("slices", False, 2, 0.5),
        ("slices", True, 1, 1.0),
        ("im2col", False, 2, 0.5),
        ("im2col", True, 1, 1.0),
        ("einsum", False, 2, 0.5),
        ("matmul", False, 1, 1.0),
    ],
)
def test_recognised(
    unfolding: Unfolding, per_channel: bool, heads: int, scale: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, x = Fan(unfolding, per_channel, heads, scale), torch.randn(1, 3, 5, 6)
    expected = model(x).detach().numpy()
    before = imported(model, x, tmp_path / "fan.onnx", unfolding)
    after = RecogniseLocalAttention().run(before)
    (op,) = (op for op in after.ops if isinstance(op, LocalAttention2d))
    assert (op.kernel, op.heads, op.score_scale) == ((3, 3), 8 if per_channel else heads, scale)
    assert op.pads_begin == op.pads_end == ((0, 0) if unfolding == "slices" else (1, 1))
    assert {op.kind for op in after.ops} <= {"Conv", "Pad", "Slice", "LocalAttention2d"}
    for graph in (before, after):
        result = Executor(graph).run({"x": x.numpy()})[graph.outputs[0]]
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_what_only_looks_alike_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Fan("raw_view", False, 1, 1.0), torch.randn(1, 3, 5, 6)
    graph = imported(model, x, tmp_path / "fan.onnx", "raw_view")
    assert "Softmax" in {op.kind for op in graph.ops}
    assert RecogniseLocalAttention().run(graph) is graph


class Wide(nn.Module):
    """Attention over whole maps, rows or channels."""

    def __init__(self, over: Literal["map", "row", "channels"]) -> None:
        super().__init__()
        self.over = over
        self.joint = nn.Conv2d(3, 24, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.joint(x).chunk(3, dim=1)
        if self.over == "row":
            q, k, v = (item.permute(0, 2, 3, 1) for item in (q, k, v))
        else:
            q, k, v = (item.flatten(2) for item in (q, k, v))
        if self.over == "map":
            q, k, v = (item.transpose(1, 2) for item in (q, k, v))
        total: Tensor = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        if self.over == "row":
            return total.permute(0, 3, 1, 2)
        if self.over == "map":
            total = total.transpose(1, 2)
        return total.reshape(x.shape[0], 8, *x.shape[2:])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("over", ["map", "row", "channels"])
def test_attention_over_more_than_windows_stays(
    over: Literal["map", "row", "channels"], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, x = Wide(over), torch.randn(1, 3, 5, 6)
    graph = imported(model, x, tmp_path / "wide.onnx", "im2col")
    assert "Softmax" in {op.kind for op in graph.ops}
    assert RecogniseLocalAttention().run(graph) is graph


@pytest.mark.filterwarnings("ignore")
def test_many_tokens_are_told_apart_by_a_few_elements(tmp_path: Path) -> None:
    """Following all that 1024 tokens are made of takes gigabytes."""
    torch.manual_seed(0)
    model, x = Wide("map"), torch.randn(1, 3, 32, 32)
    graph = imported(model, x, tmp_path / "wide.onnx", "im2col")
    tracemalloc.start()
    try:
        assert RecogniseLocalAttention().run(graph) is graph
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
