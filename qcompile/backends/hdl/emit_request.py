"""What the emitted files of an accelerator are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from qcompile.backends.c.names import identifier, unique
from qcompile.devices import Device
from qcompile.hw.design import Design
from qcompile.hw.fifo import Fifo
from qcompile.hw.stage import Fold
from qcompile.hw.streams import TensorStream
from qcompile.types import Array, TensorType


@dataclass(frozen=True, slots=True)
class PortTensor:
    """An input or output of the network: its name there, and its integer type."""

    value: str
    kind: TensorType


@dataclass(frozen=True)
class LayerRow:
    """One operator as the manifest and the picture show it.

    Attributes:
        name: readable identifier; prefix of its nodes.
        operator: what the user calls it, such as "Conv '/down.0/Conv'".
        kind: short name of the operator.
        nodes: names of its nodes in the design.
        fold: parallelism; None where nothing is computed.
        cycles: clock cycles of a frame when nothing else limits.
        latency: clock cycles from the last beat needed to the output beat.
        ram_bits, multipliers: sums over its blocks.
        estimate: resource -> estimated number ('lut', 'ff', ...).
    """

    name: str
    operator: str
    kind: str
    nodes: tuple[str, ...]
    fold: Fold | None
    cycles: int
    latency: int
    ram_bits: int
    multipliers: int
    estimate: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class EmitRequest:
    """A design, and everything that is said about it in the files.

    Attributes:
        design: the accelerator.
        network: name of the graph.
        inputs, outputs: in the order of those of `design`.
        layers: in topological order. Nodes in none of them are forks, FIFOs and gearboxes.
        interval: clock cycles from frame to frame.
        latency: clock cycles from the first input beat to the last output beat of a frame.
        exact: whether these two are; with the smallest FIFOs they are estimates.
        fifo_minimum: node of a FIFO -> the depth below which the schedule is not met.
        vectors: for each frame of the testbench all inputs and expected outputs by value name, as
            integers in the tensor's shape.
        entry: prefix of module and file names.
        clock: MHz.
        device: None for any.
        estimate: resource -> estimated total.
        metadata: version, options and so on, for comments and the manifest.
        build: 32 bits that identify the accelerator in a register.
    """

    design: Design
    network: str
    inputs: tuple[PortTensor, ...]
    outputs: tuple[PortTensor, ...]
    layers: tuple[LayerRow, ...]
    interval: int
    latency: int
    exact: bool = True
    fifo_minimum: Mapping[str, int] = field(default_factory=dict)
    vectors: Sequence[Mapping[str, Array]] = ()
    entry: str = "model"
    clock: float = 100.0
    device: Device | None = None
    estimate: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    build: int = 0

    @property
    def top(self) -> str:
        """Name of the top module."""
        return f"{self.entry}_top"

    @cached_property
    def input_ports(self) -> tuple[Port, ...]:
        return _ports("s_axis", self.inputs, tuple(self.design.inputs.values()))

    @cached_property
    def output_ports(self) -> tuple[Port, ...]:
        return _ports("m_axis", self.outputs, tuple(self.design.outputs.values()))

    @property
    def bottleneck(self) -> str:
        """Name of the layer that takes most cycles."""
        return max(self.layers, key=lambda layer: layer.cycles).name if self.layers else ""

    @property
    def fifo_depths(self) -> Mapping[str, int]:
        """Node -> beats it can hold."""
        return {
            node.name: node.block.depth
            for node in self.design.nodes
            if isinstance(node.block, Fifo)
        }


@dataclass(frozen=True, slots=True)
class Port:
    """An AXI4-Stream port: prefix of its signals, and what flows there."""

    name: str
    tensor: PortTensor
    stream: TensorStream
    suffix: str

    @property
    def scale(self) -> float | None:
        """Real value of code 1, where one scale holds for the tensor."""
        quantization = self.tensor.kind.quantization
        if quantization is None or not quantization.is_per_tensor:
            return None
        return quantization.scale[0]


def _ports(
    prefix: str, tensors: Sequence[PortTensor], streams: Sequence[TensorStream]
) -> tuple[Port, ...]:
    """One port is `prefix`; several are told apart by the tensors' names."""
    if len(tensors) == 1:
        suffixes = [""]
    else:
        parts = [identifier(tensor.value) for tensor in tensors]
        suffixes = [f"_{part}" for part in unique(part or "t" for part in parts)]
    return tuple(
        Port(prefix + suffix, tensor, stream, suffix)
        for suffix, tensor, stream in zip(suffixes, tensors, streams, strict=True)
    )
