"""Attributes that all sliding windows share: kernel, strides, dilations and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.importer.builder import MAX_SIZE
from qcompile.importer.node import Node
from qcompile.types import Shape


@dataclass(frozen=True, slots=True)
class Window:
    """One entry for each spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]


def spatial_rank(node: Node, shape: Shape) -> int:
    """Number of spatial axes of an input [1, C, *spatial]."""
    if len(shape) < 3:
        node.malformed(f"input of shape {list(shape)} has no spatial axes")
    return len(shape) - 2


def steps(node: Node, name: str, rank: int) -> tuple[int, ...]:
    """An attribute of positive integers such as `strides`, by default ones."""
    values = node.integers(name, (1,) * rank)
    if len(values) != rank or not all(1 <= value <= MAX_SIZE for value in values):
        node.malformed(f"{name} {list(values)[:16]} must be {rank} positive numbers")
    return values


def read_window(node: Node, shape: Shape, kernel: Sequence[int]) -> Window:
    """The window of a convolution or pool over an input of `shape`, auto_pad resolved."""
    rank = spatial_rank(node, shape)
    if len(kernel) != rank or not all(1 <= size <= MAX_SIZE for size in kernel):
        node.malformed(f"kernel {list(kernel)[:16]} does not fit the input of shape {list(shape)}")
    strides = steps(node, "strides", rank)
    dilations = steps(node, "dilations", rank)
    mode = node.text("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        begins, ends = [], []
        for size, k, stride, dilation in zip(shape[2:], kernel, strides, dilations, strict=True):
            positions = -(-size // stride)
            total = max(0, (positions - 1) * stride + (k - 1) * dilation + 1 - size)
            small, large = total // 2, total - total // 2
            begins.append(small if mode == "SAME_UPPER" else large)
            ends.append(large if mode == "SAME_UPPER" else small)
        return Window(tuple(kernel), strides, dilations, tuple(begins), tuple(ends))
    pads = explicit_pads(node, rank) if mode != "VALID" else (0,) * (2 * rank)
    return Window(tuple(kernel), strides, dilations, pads[:rank], pads[rank:])


def explicit_pads(node: Node, rank: int) -> tuple[int, ...]:
    """The `pads` attribute: all begins, then all ends."""
    mode = node.text("auto_pad", "NOTSET")
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        node.malformed(f"auto_pad '{mode}' does not exist")
    pads = node.integers("pads", (0,) * (2 * rank))
    if len(pads) != 2 * rank or not all(0 <= pad <= MAX_SIZE for pad in pads):
        node.malformed(f"pads {list(pads)[:16]} must be {2 * rank} numbers that are not negative")
    return pads


def normal_axis(node: Node, axis: int, rank: int) -> int:
    """A possibly negative axis as a non-negative one."""
    if not -rank <= axis < rank:
        node.malformed(f"axis {axis} does not exist in an input of {rank} axes")
    return axis % rank


def normal_axes(node: Node, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Like `normal_axis` for several axes, none of them twice."""
    result = tuple(normal_axis(node, axis, rank) for axis in axes)
    if len(set(result)) != len(result):
        node.malformed(f"axes {list(axes)} name an axis twice")
    return result
