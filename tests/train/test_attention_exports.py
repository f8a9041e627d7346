"""Attention networks as torch exports them: the same in floats, and close in integers."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qcompile.importer import import_model
from qcompile.options import CompileOptions, Target
from qcompile.passes.base import run_passes
from qcompile.pipeline import compile_model, simplify_passes
from qcompile.sim.executor import Executor
from qcompile.types import Array

SIZE, WIDTH, HEADS = 8, 8, 2


class Tokens(nn.Module):
    """Patches of 2 x 2 as tokens through a block, and back to a map of two classes."""

    def __init__(self, block: nn.Module, token: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, 2, 2)
        self.position = nn.Parameter(torch.randn(1, 16 + token, WIDTH) / 4)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH)) if token else None
        self.block = block
        self.head = nn.Conv2d(WIDTH, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            t = torch.cat([self.token.expand(t.shape[0], -1, -1), t], 1)
        t = self.block(t + self.position)[:, -16:]
        result: Tensor = self.head(t.transpose(1, 2).reshape(1, WIDTH, 4, 4))
        return result


class Attention(nn.Module):
    """Attention by scaled_dot_product_attention, or by Einsum."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.form = form

    def forward(self, t: Tensor) -> Tensor:
        count = t.shape[1]
        heads = self.qkv(t).reshape(1, count, 3, HEADS, WIDTH // HEADS)
        if self.form == "einsum":
            q, k, v = heads.unbind(2)
            a = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
            y = torch.einsum("bhqk,bkhd->bqhd", a, v)
        else:
            q, k, v = heads.permute(2, 0, 3, 1, 4)
            keeps = torch.ones(count, count, dtype=torch.bool).tril(3)
            y = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=keeps if self.form == "mask" else None
            ).transpose(1, 2)
        result: Tensor = t + self.out(y.reshape(1, count, WIDTH))
        return result


class SelfAttention(nn.Module):
    """torch's own layer of several heads."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, t: Tensor) -> Tensor:
        result: Tensor = self.attention(t, t, t, need_weights=False)[0]
        return result


class ShiftedWindows(nn.Module):
    """Windows of 4 x 4 of a map that is rolled by 2, with a mask where its ends meet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 2, 1)
        self.norm, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.bias = nn.Parameter(torch.randn(HEADS, 16, 16))
        part = (torch.arange(SIZE) >= SIZE - 2).float() + (torch.arange(SIZE) >= SIZE - 4)
        regions = self.windows((part[:, None] * 3 + part[None])[None, :, :, None])[:, :, 0]
        apart = regions[:, None] != regions[:, :, None]
        self.register_buffer("mask", torch.where(apart, -100.0, 0.0))

    @staticmethod
    def windows(x: Tensor) -> Tensor:
        channels = x.shape[3]
        return x.view(1, 2, 4, 2, 4, channels).permute(0, 1, 3, 2, 4, 5).reshape(4, 16, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).permute(0, 2, 3, 1)
        t = self.windows(torch.roll(self.norm(x), (-2, -2), (1, 2)))
        q, k, v = self.qkv(t).reshape(4, 16, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        a = (q / 2) @ k.transpose(-2, -1) + self.bias
        mask = self.mask
        assert isinstance(mask, Tensor)
        a = (a.view(1, 4, HEADS, 16, 16) + mask[:, None][None]).view(4, HEADS, 16, 16)
        t = (a.softmax(-1) @ v).transpose(1, 2).reshape(1, 2, 2, 4, 4, WIDTH)
        y = t.permute(0, 1, 3, 2, 4, 5).reshape(1, SIZE, SIZE, WIDTH)
        x = x + torch.roll(y, (2, 2), (1, 2))
        result: Tensor = self.last(functional.gelu(x.permute(0, 3, 1, 2)))
        return result


class Axial(nn.Module):
    """Attention along the rows and then the columns of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 2, 1)
        self.qkv = nn.Conv2d(WIDTH, 3 * WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for axis in (2, 3):
            q, k, v = (
                t.movedim(axis, 1).reshape(SIZE, WIDTH, SIZE) for t in self.qkv(x).chunk(3, 1)
            )
            a = torch.softmax(torch.bmm(q.transpose(1, 2), k) * WIDTH**-0.5, -1)
            y = torch.bmm(v, a.transpose(1, 2)).reshape(1, SIZE, WIDTH, SIZE)
            x = x + y.movedim(1, axis)
        result: Tensor = self.last(x)
        return result


def encoder(activation: str, first: bool) -> nn.Module:
    return nn.TransformerEncoderLayer(
        WIDTH, HEADS, 16, activation=activation, batch_first=True, norm_first=first
    )


NETWORKS = {
    "self_attention": lambda: Tokens(SelfAttention()),
    "sdpa": lambda: Tokens(Attention("sdpa"), token=True),
    "mask": lambda: Tokens(Attention("mask")),
    "einsum": lambda: Tokens(Attention("einsum")),
    "encoder": lambda: Tokens(encoder("gelu", True), token=True),
    "encoder_post": lambda: Tokens(encoder("relu", False)),
    "windows": ShiftedWindows,
    "axial": Axial,
}


def exported(name: str, opset: int, folder: Path) -> tuple[Path, Array, Array]:
    """The file, an image and what torch makes of it."""
    torch.manual_seed(1)
    model = NETWORKS[name]().eval()
    x = torch.rand(1, 1, SIZE, SIZE)
    path = folder / f"{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), path, dynamo=False, opset_version=opset, input_names=["x"])
    with torch.no_grad():
        return path, x.numpy(), model(x).numpy()


@pytest.mark.parametrize("opset", [14, 17])
@pytest.mark.parametrize("name", NETWORKS)
def test_import_and_passes_change_nothing(name: str, opset: int, tmp_path: Path) -> None:
    path, x, expected = exported(name, opset, tmp_path)
    graph = import_model(path, {})
    simple = run_passes(graph, simplify_passes(CompileOptions()), None)
    found = {op.kind for op in simple.ops}
    assert not found & {"Erf", "Sqrt", "Div", "MaskedFill", "ReduceMean"}
    for network in (graph, simple):
        (result,) = Executor(network).run({"x": x}).values()
        np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.parametrize(("bits", "least"), [(8, 30.0), (6, 18.0)])
@pytest.mark.parametrize("name", ["encoder", "windows"])
def test_integers_are_close(name: str, bits: int, least: float, tmp_path: Path) -> None:
    path, _, _ = exported(name, 17, tmp_path)
    options = CompileOptions(target=Target.SIM, wbits=str(bits), abits=str(bits))
    layers = compile_model(path, options).report.layers
    last = [row.fidelity for row in layers if row.fidelity is not None][-1]
    assert last.sqnr_db is not None
    assert last.sqnr_db > least


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("name", NETWORKS)
def test_c_equals_the_simulator(name: str, tmp_path: Path) -> None:
    path, _, _ = exported(name, 17, tmp_path)
    assert compile_model(path, CompileOptions(wbits="4", abits="6", verify=True)).verified
