"""Random small ONNX networks: every operator of ordinary segmentation networks, in odd company.

Everything is drawn from a `random.Random`, so that hypothesis can draw (and shrink) through
`st.randoms(use_true_random=False)`, and a search by hand through plain seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qcompile.types import Array, Shape

LARGEST = 3000
"""Elements of one activation."""

OPSETS = (14, 17, 21)


@dataclasses.dataclass
class Network:
    """A model that grows node by node.

    `benign` networks have weights, norms and activations that quantization at 8 bits ought to
    survive; others have dead channels, zero filters, and scales far apart.
    """

    rng: Random
    benign: bool
    opset: int
    last: bool = False
    nodes: list[onnx.NodeProto] = dataclasses.field(default_factory=list)
    constants: dict[str, Array] = dataclasses.field(default_factory=dict)
    inputs: dict[str, Shape] = dataclasses.field(default_factory=dict)
    shapes: dict[str, Shape] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.numbers = np.random.default_rng(self.rng.randrange(1 << 30))

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def value(self) -> str:
        """A value with spatial axes; recent ones more often, so that networks get deep. The heads
        of attention along rows are no images: they have another batch."""
        images = [name for name, shape in self.shapes.items() if len(shape) > 2 and shape[0] == 1]
        back = 0
        while back + 1 < len(images) and self.chance(0.35):
            back += 1
        return images[-1 - back]

    def twins(self, value: str) -> list[str]:
        return [name for name, shape in self.shapes.items() if shape == self.shapes[value]]

    def constant(self, data: Any, dtype: str = "float32") -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(data, dtype=dtype)
        return name

    def add(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> str:
        """Adds a node; returns its first output. The outputs must be given shapes by `keep`."""
        number = len(self.nodes)
        names = [f"v{number}"] + [f"v{number}_{i}" for i in range(1, outputs)]
        node = helper.make_node(kind, list(inputs), names, f"/{kind}_{number}", **attributes)
        self.nodes.append(node)
        return names[0]

    def infer(self) -> None:
        """Shapes of the newest nodes; networks with empty or large tensors lose them again."""
        model = onnx.shape_inference.infer_shapes(self.model(()), strict_mode=True, data_prop=True)
        found = {item.name: _dims(item) for item in model.graph.value_info}
        found.update({item.name: _dims(item) for item in model.graph.output})
        for node in self.nodes:
            for name in node.output:
                if name in self.shapes or not name or name not in found:
                    continue
                shape = found[name]
                if int(np.prod(shape)) > LARGEST or min(shape) < 1:
                    raise TooLarge
                self.shapes[name] = shape

    def grow(self, layer: Callable[[Network, str], None]) -> None:
        """One random layer on a random value; nothing if it does not fit there."""
        count = len(self.nodes)
        try:
            layer(self, self.value())
            self.infer()
        except TooLarge:
            del self.nodes[count:]
            made = {name for node in self.nodes for name in node.output} | set(self.inputs)
            self.shapes = {name: s for name, s in self.shapes.items() if name in made}

    def weights(self, outputs: int, *shape: int) -> Array:
        """[outputs, ...] with about unit gain; wild ones where the network is not benign."""
        fan_in = max(1, int(np.prod(shape)))
        data = self.numbers.standard_normal((outputs, *shape)) / np.sqrt(fan_in)
        if not self.benign:
            data *= 10.0 ** self.rng.choice((0, 0, 0, -3, 2))
            row = self.rng.randrange(outputs)
            data[row] *= self.rng.choice((1.0, 1.0, 0.0, 1e-6, 300.0))
            if self.chance(0.05):
                data[:] = 0.0
        return np.asarray(data, dtype=np.float32)

    def vector(self, count: int, spread: float = 0.3) -> Array:
        data = self.numbers.standard_normal(count) * spread
        if not self.benign and self.chance(0.3):
            data *= 10.0 ** self.rng.choice((-4, 1, 2))
        return np.asarray(data, dtype=np.float32)

    def gains(self, count: int) -> Array:
        """Of norms: some negative, some 0 where the network is not benign."""
        data = 1 + self.vector(count)
        if not self.benign and self.chance(0.4):
            data[self.rng.randrange(count)] *= self.rng.choice((0.0, -1.0, 1e-5))
        return np.asarray(data, dtype=np.float32)

    def model(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """The model; `()` makes every unused value an output."""
        used = {name for node in self.nodes for name in node.input}
        made = [name for node in self.nodes for name in node.output]
        names = list(outputs) or [name for name in made if name not in used]
        graph = helper.make_graph(
            self.nodes,
            "random",
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in self.inputs.items()
            ],
            [self._info(name) for name in names],
            [numpy_helper.from_array(data, name) for name, data in self.constants.items()],
            value_info=[self._info(name) for name in made if name in self.shapes],
        )
        return helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid(domain, self.opset if domain == "" else 1)
                for domain in sorted({"", *(node.domain for node in self.nodes)})
            ],
            ir_version=8,
        )

    def _info(self, name: str) -> onnx.ValueInfoProto:
        if name not in self.shapes:
            return onnx.ValueInfoProto(name=name)
        element = TensorProto.INT64 if self._is_class_map(name) else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, element, self.shapes[name])

    def _is_class_map(self, name: str) -> bool:
        maker = next((node for node in self.nodes if name in node.output), None)
        if maker is None or maker.op_type != "Transpose":
            return maker is not None and maker.op_type == "ArgMax"
        return self._is_class_map(maker.input[0])


class TooLarge(Exception):
    """A layer's output is empty or has more than `LARGEST` elements."""


def _dims(item: onnx.ValueInfoProto) -> Shape:
    return tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim)


def random_network(
    rng: Random, benign: bool = False, layers: int = 6, attention: bool = False
) -> onnx.ModelProto:
    """A network of 2 to `layers` layers, most of them one or a few nodes; with `attention` every
    other one has to do with it."""
    from tests.random_attention import ATTENTION_LAYERS, BENIGN_ATTENTION_LAYERS
    from tests.random_layers import BENIGN_LAYERS, ENDS, LAYERS

    network = Network(rng, benign, rng.choice(OPSETS))
    rank = rng.choice((2, 2, 2, 1))
    for index in range(rng.choice((1, 1, 1, 2))):
        sizes = tuple(rng.randint(1, 12) for _ in range(rank))
        network.inputs[f"input{index}"] = (1, rng.choice((1, 1, 2, 3, 4, 8, 17)), *sizes)
    if network.chance(0.15):
        # As tf2onnx exports: channels last outside, a Transpose at the border.
        network.last = True
        network.inputs = {name: (1, *s[2:], s[1]) for name, s in network.inputs.items()}
    network.shapes.update(network.inputs)
    wanted = rng.randint(2, layers)
    choices = BENIGN_LAYERS if benign else LAYERS
    if attention:
        choices = BENIGN_ATTENTION_LAYERS if benign else ATTENTION_LAYERS
    for name in network.inputs:
        # Every input is used, and no output is an input.
        network.shapes = {name: network.inputs[name], **network.shapes}
        _use(network, name)
    for _ in range(wanted):
        network.grow(rng.choice(choices))
    outputs = _unused(network)
    if network.chance(0.4):
        network.grow(rng.choice(ENDS[:4] if benign else ENDS))
        outputs = _unused(network)
    if network.last:
        for name in [name for name in outputs if len(network.shapes[name]) > 2]:
            rank = len(network.shapes[name])
            network.add("Transpose", [name], perm=[0, *range(2, rank), 1])
        network.infer()
        outputs = _unused(network)
    if network.chance(0.15):
        inner = [name for node in network.nodes for name in node.output if name in network.shapes]
        outputs = list(dict.fromkeys([*outputs, rng.choice(inner)]))
    model = network.model(outputs)
    onnx.checker.check_model(model)
    return model


def _use(network: Network, name: str) -> None:
    """A first layer for an input, which fits every size."""
    rank = len(network.shapes[name]) - 2
    if network.last:
        name = network.add("Transpose", [name], perm=[0, rank + 1, *range(1, rank + 1)])
        network.infer()
    channels = network.shapes[name][1]
    outputs = network.rng.randint(1, 6)
    weights = network.constant(network.weights(outputs, channels, *([1] * rank)))
    network.add("Conv", [name, weights, network.constant(network.vector(outputs))])
    network.infer()


def _unused(network: Network) -> list[str]:
    used = {name for node in network.nodes for name in node.input}
    return [
        name
        for node in network.nodes
        for name in node.output
        if name in network.shapes and name not in used
    ]


def random_feeds(model: onnx.ModelProto, rng: Random, count: int, pixels: bool) -> list[Feed]:
    """Inputs: uint8 pixels, or floats of both signs."""
    numbers = np.random.default_rng(rng.randrange(1 << 30))
    feeds = []
    for _ in range(count):
        feed: dict[str, Array] = {}
        for item in model.graph.input:
            shape = _dims(item)
            if pixels:
                feed[item.name] = numbers.integers(0, 256, shape).astype(np.uint8)
            else:
                feed[item.name] = numbers.standard_normal(shape).astype(np.float32)
        feeds.append(feed)
    return feeds


Feed = Mapping[str, Array]
