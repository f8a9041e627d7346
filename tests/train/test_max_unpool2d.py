"""The layer of unpooling: what it computes, and its way through ONNX to C."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qcompile.errors import QCompileError
from qcompile.importer import import_model
from qcompile.options import CompileOptions, InputChoice
from qcompile.pipeline import compile_model
from qcompile.sim.executor import Executor
from qcompile.train.local_attention import LocalAttention2d
from qcompile.train.max_unpool2d import MaxUnpool2d


class Network(nn.Module):
    """Self-attention around a pool with indices and its unpooling, as in SUMNet: the decoder sees
    the map before the pool beside the unpooled one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = LocalAttention2d(1, 4, 3)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.middle = LocalAttention2d(4, 4, 3, mode="per_channel")
        self.unpool = MaxUnpool2d(2)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = torch.relu(self.first(x))
        pooled, indices = self.pool(skip)
        inner = torch.relu(self.middle(pooled))
        up = self.unpool(inner, indices, output_size=skip.shape)
        result: Tensor = self.last(torch.cat([skip, up], 1))
        return result


class Pair(nn.Module):
    """A pool and its unpooling, of given geometry."""

    def __init__(self, geometry: tuple[int, int, int], sized: bool) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(*geometry, return_indices=True)
        self.unpool, self.twin = MaxUnpool2d(*geometry), nn.MaxUnpool2d(*geometry)
        self.sized = sized

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = self.pool(x)
        result: Tensor = self.unpool(pooled * 0.5, indices, x.shape if self.sized else None)
        return result

    def expected(self, x: Tensor) -> Tensor:
        """The same by torch's own layer."""
        pooled, indices = self.pool(x)
        size = x.shape if self.sized else None
        result: Tensor = self.twin(pooled * 0.5, indices, size)
        return result


def exported(model: nn.Module, x: Tensor, path: Path, opset: int = 17) -> Path:
    torch.onnx.export(
        model.eval(),
        (x,),
        path,
        dynamo=False,
        opset_version=opset,
        custom_opsets={"qcompile": 1},
        input_names=["x"],
    )
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("geometry", "shape", "sized", "opset"),
    [
        ((2, 2, 0), (6, 8), False, 11),
        ((2, 2, 0), (7, 9), True, 17),
        ((2, 3, 0), (8, 7), True, 20),
        ((3, 3, 1), (7, 7), False, 17),
    ],
)
def test_as_torch_unpools(
    geometry: tuple[int, int, int], shape: tuple[int, int], sized: bool, opset: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, x = Pair(geometry, sized), torch.randn(1, 3, *shape)
    expected = model.expected(x).numpy()
    np.testing.assert_array_equal(model(x).numpy(), expected)
    graph = import_model(exported(model, x, tmp_path / "net.onnx", opset))
    assert [op.kind for op in graph.ops].count("MaxUnpool") == 1
    found = Executor(graph).run({"x": x.numpy()})[graph.outputs[0]]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ((2, 2, 0), r"MaxUnpool .*its result of shape \[1, 3, 6, 8\] is not the \[1, 3, 7, 9\]"),
        ((3, 2, 1), "overlap"),
    ],
)
def test_what_is_refused(geometry: tuple[int, int, int], message: str, tmp_path: Path) -> None:
    """A shape that strides do not divide, without its size; windows that share pixels."""
    path = exported(Pair(geometry, False), torch.randn(1, 3, 7, 9), tmp_path / "net.onnx")
    with pytest.raises(QCompileError, match=message):
        import_model(path)


@pytest.mark.filterwarnings("ignore")
def test_self_attention_with_unpooling_in_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    script = tmp_path / "cc-o0"
    script.write_text('#!/bin/sh\nexec gcc "$@" -O0 -DQCOMPILE_KEEP_FLAGS\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    torch.manual_seed(1)
    path = exported(Network(), torch.rand(1, 1, 7, 10), tmp_path / "net.onnx")
    np.save(tmp_path / "calib.npy", np.random.default_rng(0).random((4, 1, 7, 10), np.float32))
    options = CompileOptions(
        calib=str(tmp_path / "calib.npy"), verify=True, input_kind=InputChoice.FLOAT32
    )
    graph = compile_model(path, options).integer_graph
    kinds = [op.kind for op in graph.ops]
    assert kinds.count("LocalAttention2d") == 2
    assert kinds.count("MaxUnpool") == 1
