"""Accelerators of networks that nobody draws in a textbook: bit-exact, or one clear refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from qcompile.backends.hdl.backend import HdlBackend
from qcompile.backends.hdl.cxxrtl import find_compiler
from qcompile.backends.hdl.stimulus import Stalls
from qcompile.backends.hdl.verify import verify
from tests.backends.hdl_models import Net, compiled, feeds

STALLS = (Stalls(0.5, 0.6, 3),)
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")

ODD_NAMES = (
    'a"b',
    "a*/b",
    "$display",
    "`define",
    "a b",
    "\\esc",
    "</svg>",
    "../../etc",
    "層",
    "größe",
    "module",
    "aclk",
    "i0",
    "o0",
    "1a",
    "1_a",
    "1.a",
    "a\nb",
    "n" * 3000,
    "n" * 3000 + "1",
)


def one_pixel() -> onnx.ModelProto:
    net = Net({"image": (1, 1, 1, 1)})
    return net.model(net.conv(net.block("image", 3), 1, 1))


def one_row() -> onnx.ModelProto:
    net = Net({"image": (1, 2, 1, 17)})
    return net.model(net.conv(net.block(net.block("image", 4), 3), 2, 1))


def one_column() -> onnx.ModelProto:
    net = Net({"image": (1, 2, 17, 1)})
    return net.model(net.conv(net.block(net.block("image", 4), 3), 2, 1))


def prime_channels() -> onnx.ModelProto:
    net = Net({"image": (1, 5, 7, 11)})
    return net.model(net.conv(net.block(net.block("image", 7), 13), 3, 1))


def very_wide() -> onnx.ModelProto:
    net = Net({"image": (1, 1, 2, 3000)})
    return net.model(net.conv(net.block("image", 2), 2, 1))


def kernel_beyond_the_image() -> onnx.ModelProto:
    net = Net({"image": (1, 1, 5, 5)})
    return net.model(net.conv(net.block("image", 2), 2, 11))


def same_value_twice() -> onnx.ModelProto:
    """Both inputs of Add, of Mul and of Concat are one value."""
    net = Net({"image": (1, 2, 6, 6)})
    x = net.block("image", 4)
    return net.model(net.conv(net.concat(net.add("Add", x, x), net.add("Mul", x, x), x, x), 2, 1))


def only_a_lookup() -> onnx.ModelProto:
    net = Net({"image": (1, 1, 8, 8)})
    return net.model(net.add("Sigmoid", "image"))


def only_a_concat() -> onnx.ModelProto:
    net = Net({"image": (1, 1, 8, 8)})
    return net.model(net.concat("image", "image"))


def apart() -> onnx.ModelProto:
    """Two networks in one; one has its result in two outputs, which it also reads."""
    net = Net({"a": (1, 2, 6, 6), "b": (1, 5)})
    x = net.block("a", 3)
    dense = net.add("Gemm", "b", net.constant(net.rng.standard_normal((5, 3))), channels=3)
    return net.model(x, net.conv(x, 2), net.add("Identity", x), dense)


def odd_names() -> onnx.ModelProto:
    """Every value and node has a name that means something to somebody else."""
    net = Net({"image": (1, 2, 6, 6)})
    x = net.block("image", 3)
    model = net.model(net.conv(net.concat(x, net.block(x, 2)), 2))
    graph = model.graph
    values = [value for node in graph.node for value in (*node.input, *node.output)]
    names = dict(zip(dict.fromkeys(values), ODD_NAMES, strict=False))
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names[value] for value in ends]
        node.name = '"; $finish; //\n*/ </text>'
    for item in (*graph.input, *graph.output, *graph.initializer):
        item.name = names[item.name]
    return model


def several_skips() -> onnx.ModelProto:
    """Short and long ways meet three times."""
    net = Net({"image": (1, 1, 6, 6)})
    x = net.block("image", 2)
    for _ in range(3):
        x = net.concat(x, net.block(x, 2))
    return net.model(net.conv(x, 2))


def unused_input() -> onnx.ModelProto:
    net = Net({"image": (1, 2, 8, 8), "extra": (1, 3, 4, 4)})
    return net.model(net.conv("image", 2))


def identity() -> onnx.ModelProto:
    net = Net({"image": (1, 2, 8, 8)})
    return net.model(net.add("Identity", "image"))


def norm() -> onnx.ModelProto:
    net = Net({"image": (1, 4, 8, 8)})
    x = net.block("image", 4)
    gains, shifts = net.constant(np.ones(4)), net.constant(np.zeros(4))
    return net.model(net.conv(net.add("InstanceNormalization", x, gains, shifts), 2))


def softmax() -> onnx.ModelProto:
    net = Net({"image": (1, 2, 5, 7)})
    return net.model(net.add("Softmax", net.conv(net.block("image", 3), 6), axis=1))


def softmax_of_rows() -> onnx.ModelProto:
    net = Net({"image": (1, 4, 8, 8)})
    return net.model(net.add("Softmax", net.conv("image", 4), axis=2))


def softmax_of_some() -> onnx.ModelProto:
    """One of the classes is taken out by what is added to its scores."""
    net = Net({"image": (1, 4, 8, 8)})
    out = np.where(np.arange(4) == 2, -1e9, 0)[None, :, None, None]
    scores = net.add("Add", net.conv("image", 4), net.constant(out))
    return net.model(net.add("Softmax", scores, axis=1))


def tokens() -> onnx.ModelProto:
    """Every pixel attends to all of them, behind a layer norm."""
    net = Net({"image": (1, 4, 6, 6)})
    shape = net.constant([1, 4, 36], "int64")
    x = net.add("Transpose", net.add("Reshape", net.conv("image", 4), shape), perm=[0, 2, 1])
    x = net.add("LayerNormalization", x, net.constant(np.ones(4)), net.constant(np.zeros(4)))
    scores = net.add("MatMul", x, net.add("Transpose", x, perm=[0, 2, 1]))
    x = net.add("MatMul", net.add("Softmax", scores, axis=-1), x)
    x = net.add("Transpose", x, perm=[0, 2, 1])
    return net.model(net.add("Reshape", x, net.constant([1, 4, 6, 6], "int64")))


def product_of_maps() -> onnx.ModelProto:
    net = Net({"image": (1, 4, 6, 6)})
    return net.model(net.add("MatMul", net.conv("image", 4), net.conv("image", 4, 1)))


def filled() -> onnx.ModelProto:
    net = Net({"image": (1, 4, 6, 6)})
    where = net.constant(np.eye(6), "bool")
    x = net.conv("image", 4)
    return net.model(net.conv(net.add("Where", where, net.constant(0.5), x, channels=4), 2))


def volume() -> onnx.ModelProto:
    net = Net({"image": (1, 1, 4, 4, 4)})
    weights = net.constant(net.rng.standard_normal((2, 1, 3, 3, 3)))
    return net.model(net.add("Conv", "image", weights, channels=2, pads=[1] * 6))


def transposed() -> onnx.ModelProto:
    net = Net({"image": (1, 2, 4, 6)})
    return net.model(net.add("Transpose", net.conv("image", 3), perm=[0, 2, 3, 1]))


def reshaped() -> onnx.ModelProto:
    net = Net({"image": (1, 2, 4, 6)})
    shape = net.constant([1, 2, 8, 6], "int64")
    return net.model(net.conv(net.add("Reshape", net.block("image", 4), shape, channels=2), 2))


def backwards() -> onnx.ModelProto:
    net = Net({"image": (1, 3, 8, 8)})
    bounds = [net.constant([number], "int64") for number in (-1, -100, 3, -1)]
    return net.model(net.conv(net.add("Slice", net.block("image", 4), *bounds), 2))


def plain() -> onnx.ModelProto:
    net = Net({"image": (1, 1, 4, 4)})
    return net.model(net.conv(net.block("image", 2), 2))


Maker = Callable[[], onnx.ModelProto]

QUICK: tuple[Maker, ...] = (
    one_pixel,
    one_row,
    same_value_twice,
    apart,
    odd_names,
    only_a_concat,
    softmax,
)
SLOW: tuple[Maker, ...] = (
    one_column,
    prime_channels,
    very_wide,
    kernel_beyond_the_image,
    only_a_lookup,
    several_skips,
)
REFUSED: Mapping[str, tuple[Maker, str]] = {
    "unused input": (unused_input, "extra': is read by nothing; remove it"),
    "identity": (identity, "has no operator to build"),
    "norm": (norm, "needs the whole map before its first result"),
    "softmax": (softmax_of_rows, "Softmax '/softmax1': runs along axis 2; use axis 1 (channels)"),
    "softmax of some": (softmax_of_some, "Softmax '/softmax2': leaves elements out by a mask; use"),
    "product": (
        product_of_maps,
        "BatchMatMul '/matmul2': multiplies two computed tensors, which a stream does not keep; "
        "attend to windows (LocalAttention2d), or use --target c",
    ),
    "filled": (filled, "MaskedFill '/where1': sets elements by a mask, which has no block; use"),
    "volume": (volume, "has 5 axes"),
    "transposed": (transposed, "Transpose '/transpose1': moves axes"),
    "reshaped": (reshaped, "Reshape '/reshape2': moves pixels"),
    "backwards": (backwards, "Slice '/slice2': reads backwards; use positive steps"),
}


def check(maker: Maker, folder: Path, **options: Any) -> None:
    graph = compiled(maker(), folder, **{"wbits": "4", "abits": "6", **options})
    design = HdlBackend().plan(graph).design
    result = verify(graph, design, feeds(graph), stalls=STALLS)
    assert result.values == len(design.taps)


@needs_compiler
@pytest.mark.parametrize("maker", QUICK)
def test_an_odd_network(maker: Maker, tmp_path: Path) -> None:
    check(maker, tmp_path)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("maker", SLOW)
def test_another_odd_network(maker: Maker, tmp_path: Path) -> None:
    check(maker, tmp_path)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("bits", ["16", "binary"])
def test_odd_widths(bits: str, tmp_path: Path) -> None:
    check(several_skips, tmp_path, wbits=bits, abits=bits, first_last_bits=bits)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_network(name: str, tmp_path: Path) -> None:
    """Simulation is not even asked: the error says what it is about, and a way out."""
    maker, reason = REFUSED[name]
    problems = HdlBackend().check(compiled(maker(), tmp_path, wbits="4", abits="6"))
    text = " | ".join(map(str, problems))
    assert reason in text
    assert "\n" not in text


def test_attention_over_all_tokens_is_refused_operator_by_operator(tmp_path: Path) -> None:
    """Each line names the operator and the node of the model, the reason and a way out."""
    problems = HdlBackend().check(compiled(tokens(), tmp_path, wbits="8", abits="8"))
    found = {problem.node: problem for problem in problems}
    kinds = {name: problem.operator for name, problem in found.items()}
    assert kinds == {
        "/reshape1": "Reshape",
        "/transpose2": "Transpose",
        "/layernormalization3": "LayerNorm",
        "/transpose4": "Transpose",
        "/matmul5": "BatchMatMul",
        "/softmax6": "Softmax",
        "/matmul7": "BatchMatMul",
        "/transpose8": "Transpose",
        "/reshape9": "Reshape",
    }
    assert all(problem.reason and problem.advice for problem in problems)
    assert str(found["/softmax6"]) == (
        "Softmax '/softmax6': runs along axis 2; use axis 1 (channels), or --target c"
    )


def test_floats_inside_are_refused_by_every_operator_that_has_them(tmp_path: Path) -> None:
    problems = HdlBackend().check(compiled(plain(), tmp_path, wbits="4", abits="32"))
    assert {problem.node for problem in problems} >= {"/conv0", "/conv2"}
    assert all("32" in problem.advice for problem in problems)
