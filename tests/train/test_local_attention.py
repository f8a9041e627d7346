"""The layer of local self-attention: what it computes, and its way through ONNX to C."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qcompile.importer import import_model
from qcompile.options import CompileOptions, Target
from qcompile.passes.recognise_local_attention import RecogniseLocalAttention
from qcompile.pipeline import compile_model
from qcompile.sim.executor import Executor
from qcompile.train.graph_module import GraphModule
from qcompile.train.local_attention import LocalAttention2d, Mode, local_attention


class Network(nn.Module):
    """Two layers, of which the first has a batch norm and a ReLU behind it."""

    def __init__(self, mode: Mode, heads: int) -> None:
        super().__init__()
        self.first = LocalAttention2d(2, 8, 3, heads, mode)
        self.norm = nn.BatchNorm2d(8)
        self.second = LocalAttention2d(8, 4, 1)
        with torch.no_grad():
            assert self.norm.running_mean is not None
            self.norm.running_mean.normal_()
            self.norm.weight.uniform_(-1, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(torch.relu(self.norm(self.first(x))))
        return result


def exported(model: nn.Module, x: Tensor, path: Path) -> Path:
    torch.onnx.export(
        model.eval(), (x,), path, dynamo=False, custom_opsets={"qcompile": 1}, input_names=["x"]
    )
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("mode", "heads"), [("dot", 1), ("dot", 4), ("per_channel", 1)])
def test_one_node_and_convolutions(mode: Mode, heads: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Network(mode, heads), torch.randn(1, 2, 6, 7)
    path = exported(model, x, tmp_path / "net.onnx")
    graph = import_model(path)
    kinds = [op.kind for op in graph.ops]
    assert kinds.count("Conv") == 6
    assert kinds.count("LocalAttention2d") == 2
    expected = model(x).detach().numpy()
    result = Executor(graph).run({"x": x.numpy()})[graph.outputs[0]]
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("target", [Target.C, Target.QDQ])
def test_compiled_and_compared(target: Target, tmp_path: Path) -> None:
    if target is Target.C and shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    torch.manual_seed(1)
    path = exported(Network("dot", 2), torch.randn(1, 2, 6, 7), tmp_path / "net.onnx")
    np.save(tmp_path / "calib.npy", np.random.default_rng(0).random((4, 2, 6, 7), np.float32))
    options = CompileOptions(calib=str(tmp_path / "calib.npy"), verify=True, target=target)
    found = compile_model(path, options)
    # The norm and the ReLU are part of the attention.
    kinds = {op.kind for op in found.integer_graph.ops}
    assert kinds == {"Quantize", "Conv", "LocalAttention2d", "Dequantize"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_exported_model_is_recognised(tmp_path: Path) -> None:
    torch.manual_seed(1)
    path = exported(Network("dot", 2), torch.randn(1, 2, 6, 7), tmp_path / "net.onnx")
    np.save(tmp_path / "calib.npy", np.random.default_rng(0).random((4, 2, 6, 7), np.float32))
    options = CompileOptions(calib=str(tmp_path / "calib.npy"), target=Target.QDQ)
    compile_model(path, options).write(tmp_path / "out")
    (model,) = (tmp_path / "out").glob("*.onnx")
    graph = RecogniseLocalAttention().run(import_model(model))
    assert sum(op.kind == "LocalAttention2d" for op in graph.ops) == 2
    assert "Softmax" not in {op.kind for op in graph.ops}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_network_as_a_module_that_trains(tmp_path: Path) -> None:
    torch.manual_seed(1)
    path = exported(Network("dot", 2), torch.randn(1, 2, 6, 7), tmp_path / "net.onnx")
    np.save(tmp_path / "calib.npy", np.random.default_rng(0).random((4, 2, 6, 7), np.float32))
    options = CompileOptions(calib=str(tmp_path / "calib.npy"), target=Target.SIM)
    graph = compile_model(path, options).float_graph
    module, x = GraphModule(graph), torch.randn(1, 2, 6, 7)
    found = module({graph.inputs[0]: x})[graph.outputs[0]]
    expected = Executor(graph).run({graph.inputs[0]: x.numpy()})[graph.outputs[0]]
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)
    found.sum().backward()
    # Weights of the convolutions, embeddings, and the norm's scale and shift.
    shapes = sorted(tuple(item.shape) for item in module.parameters() if item.grad is not None)
    assert shapes.count((8, 3, 3)) == shapes.count((4, 1, 1)) == 1
    assert shapes.count((8,)) == 2
    assert len([shape for shape in shapes if len(shape) == 4]) == 6


def test_attention_sees_its_window_alone() -> None:
    torch.manual_seed(0)
    layer = LocalAttention2d(1, 4, 3, 2)
    x = torch.randn(1, 1, 6, 6)
    y = x.clone()
    y[0, 0, 0, 0] += 1
    changed = (layer(x) != layer(y)).any(1)[0]
    assert changed.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_even_windows_have_the_larger_half_behind() -> None:
    q, k, v = (torch.randn(1, 4, 5, 6) for _ in range(3))
    assert local_attention(q, k, v, torch.zeros(4, 2, 4), 1).shape == (1, 4, 5, 6)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="odd"):
        LocalAttention2d(2, 4, 2)
    with pytest.raises(ValueError, match="3 heads"):
        LocalAttention2d(2, 4, 3, 3)
    with pytest.raises(ValueError, match="leave heads"):
        LocalAttention2d(2, 4, 3, 2, "per_channel")
    with pytest.raises(ValueError, match="raw_view"):
        LocalAttention2d(2, 4, 3, 1, "raw_view")  # type: ignore[arg-type]
