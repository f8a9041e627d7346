"""What lies before a value through operators that do the same to every element."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qcompile.graph import Graph
from qcompile.ops import IDENTITY, Activation, Affine, Rescale
from qcompile.passes.compose import compose
from qcompile.passes.fuse_activations import function_of


@dataclass(frozen=True, slots=True)
class Link:
    """A value, and the function that makes a later one of it: the same for all channels."""

    value: str
    function: Activation


def links_before(graph: Graph, value: str) -> Iterator[Link]:
    """`value` itself, then what it is computed from by `Affine` and `Rescale`, nearest first.

    Ends where an operator does something of its own to a channel, or two functions in a row are
    not one `Activation`.
    """
    total: Activation | None = IDENTITY
    while total is not None:
        yield Link(value, total)
        producer = graph.producers.get(value)
        if not isinstance(producer, Affine | Rescale):
            return
        own = function_of(graph, producer)
        if own is None or not is_scalar(own):
            return
        value, total = producer.inputs[0], compose(own, total)


def is_scalar(function: Activation) -> bool:
    """Whether all channels have one function."""
    return len(function.slope) == len(function.gain) == len(function.shift) == 1


def is_line(function: Activation) -> bool:
    """Whether all channels have gain * z + shift, unclipped."""
    unbent = Activation(gain=function.gain, shift=function.shift)
    return is_scalar(function) and function == unbent
