"""A whole accelerator before elaboration: blocks, and the channels between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from qcompile.hw.block import Block
from qcompile.hw.streams import Stream, TensorStream


@dataclass(frozen=True)
class Node:
    """One block of the design. `name` is a Verilog identifier; channels are named by strings."""

    name: str
    block: Block
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Design:
    """Nodes in topological order. Every channel has one writer and one reader.

    Attributes:
        name: module name.
        inputs: channels from outside, with what arrives there.
        outputs: channels to the outside.
        nodes: the blocks, forks, FIFOs and gearboxes.
        taps: value of the integer graph -> the channel that carries it. Several values may share
            a channel's tensor under another name; each value has one tap.
        attention: operator -> the tap of its weights, which are no value of the graph.
    """

    name: str
    inputs: Mapping[str, TensorStream]
    outputs: Mapping[str, TensorStream]
    nodes: tuple[Node, ...]
    taps: Mapping[str, str]
    attention: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def streams(self) -> Mapping[str, Stream]:
        """What flows in each channel."""
        found: dict[str, Stream] = dict(self.inputs)
        for node in self.nodes:
            found.update(zip(node.outputs, node.block.outputs, strict=True))
        return found

    @cached_property
    def writers(self) -> Mapping[str, Node]:
        return {channel: node for node in self.nodes for channel in node.outputs}

    @cached_property
    def readers(self) -> Mapping[str, Node]:
        return {channel: node for node in self.nodes for channel in node.inputs}

    @property
    def ram_bits(self) -> int:
        return sum(node.block.ram_bits for node in self.nodes)

    @property
    def multipliers(self) -> int:
        return sum(node.block.multipliers for node in self.nodes)
