"""The attention maps of `--taps attention`: what is written, and what the report says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.boundary import channel_axis
from qcompile.feeds import Feed
from qcompile.graph import Graph
from qcompile.ops import LocalAttention2d, Lookup, Softmax
from qcompile.report.examples import as_pixels
from qcompile.sim.archive import archive_bytes, safe_member
from qcompile.sim.attention_maps import Attention, attention_layers, attention_maps, levels_of
from qcompile.sim.places import Places, attention_places
from qcompile.types import Array, Shape

ATTENTION_INPUTS = 2
"""Inputs whose maps are written: the first ones, as of the test vectors."""
FOLDER = "attention"
LONGEST_NAME = 60


@dataclass(frozen=True)
class AttentionLayer:
    """The integer weights of one layer.

    Attributes:
        name: of the operator.
        operator: `LocalAttention2d`, `Softmax`, `Sigmoid` or `HardSigmoid`; the last two are gates.
        file: relative path of its archive.
        levels: the code that stands for a weight of 1; of a gate not always whole.
        weights: of a window [inputs, heads, positions, rows, columns], of a softmax
            [inputs, .., queries, keys], of a gate [inputs, channels, rows, columns].
        kernel: rows and columns of the window; empty for the others.
        pads: of the window: top, left, bottom, right.
        places: where in the image queries and keys of a softmax lie, or the pixels of a gate.
    """

    name: str
    operator: str
    file: str
    levels: int | float
    weights: Array
    kernel: Shape = ()
    pads: Shape = ()
    places: Places | None = None

    @property
    def is_gate(self) -> bool:
        return self.operator not in (LocalAttention2d.__name__, Softmax.__name__)

    def archive(self) -> bytes:
        """The content of `file`."""
        arrays = {
            "weights": self.weights,
            "levels": np.asarray(self.levels, np.float64 if self.is_gate else np.int64),
            "operator": np.asarray(self.name),
        }
        if self.kernel:
            arrays["kernel"] = np.asarray(self.kernel, np.int64)
            arrays["pads"] = np.asarray(self.pads, np.int64)
        if self.places is not None and self.is_gate:
            arrays["places"] = self.places.queries
        elif self.places is not None:
            arrays |= {"query_places": self.places.queries, "key_places": self.places.keys}
        return archive_bytes(arrays)


@dataclass(frozen=True)
class AttentionMaps:
    """All layers, and the image that the first map of each belongs to.

    Attributes:
        layers: in order of execution.
        image: uint8 [H, W] or [H, W, 3]; None where the input is no image.
        generated: the inputs were made up, for want of images.
    """

    layers: tuple[AttentionLayer, ...]
    image: Array | None
    generated: bool

    def files(self) -> dict[str, bytes]:
        """Relative path -> content."""
        return {layer.file: layer.archive() for layer in self.layers}


def collect_attention(
    graph: Graph, feeds: Sequence[Feed], raw: Feed, generated: bool
) -> AttentionMaps:
    """Runs the simulator on the first inputs.

    Args:
        graph: of the integer stage, with attention in it.
        feeds: inputs of the graph.
        raw: the first input as it was read.
        generated: whether inputs are made up.
    """
    runs = [attention_maps(graph, feed) for feed in feeds[:ATTENTION_INPUTS]]
    found = attention_layers(graph)
    places = attention_places(graph, [op for op in found if not isinstance(op, LocalAttention2d)])
    layers = tuple(
        AttentionLayer(
            op.name,
            op.function if isinstance(op, Lookup) else op.kind,
            f"{FOLDER}/{number:02d}-{safe_member(op.name)[:LONGEST_NAME].strip('._')}.npz",
            levels_of(graph, op),
            np.stack([run[op.name] for run in runs]),
            *_window(op),
            places.get(op.name),
        )
        for number, op in enumerate(found)
    )
    return AttentionMaps(layers, _image(raw), generated)


def _window(op: Attention) -> tuple[Shape, Shape]:
    if not isinstance(op, LocalAttention2d):
        return (), ()
    return op.kernel, (*op.pads_begin, *op.pads_end)


def _image(raw: Feed) -> Array | None:
    """The first input with two axes of space, as pixels."""
    for data in raw.values():
        if data.ndim == 4:
            return as_pixels(np.moveaxis(data[0], channel_axis(data.shape) - 1, -1))
    return None


def attention_rows(maps: AttentionMaps) -> list[tuple[str, ...]]:
    """For each layer name, shape of the weights of one input, what 1 is, and file."""
    return [
        (
            layer.name,
            layer.operator,
            "x".join(map(str, layer.weights.shape[1:])),
            f"{layer.levels:.6g}",
            layer.file,
        )
        for layer in maps.layers
    ]


ATTENTION_HEAD = ("Layer", "Operator", "Shape", "Weight of 1", "File")


def attention_text(maps: AttentionMaps, verified: bool | None, target: str) -> str:
    """One line on what there is, and whether it was compared."""
    count = len(maps.layers)
    source = "made-up inputs" if maps.generated else "calibration inputs"
    written = maps.layers[0].weights.shape[0]
    inputs = f"the first {written} {source}" if written > 1 else f"one of the {source}"
    text = f"{count} attention layer{'s' if count > 1 else ''}, integer weights for {inputs}"
    computing = {"c": "program", "hdl": "accelerator"}
    if verified and target in computing:
        return f"{text}; the {computing[target]} computes the same weights, compared bit by bit"
    if verified and target == "sim":
        return f"{text}; compared with those of the network file"
    return f"{text}, as the simulator computes them; not compared"


def attention_json(maps: AttentionMaps | None) -> list[Mapping[str, object]]:
    """The part of `report.json`."""
    if maps is None:
        return []
    return [
        {
            "name": layer.name,
            "operator": layer.operator,
            "file": layer.file,
            "inputs": layer.weights.shape[0],
            "shape": list(layer.weights.shape[1:]),
            "levels": layer.levels,
        }
        for layer in maps.layers
    ]
