"""Pad."""

from __future__ import annotations

import math

from qcompile.importer.builder import MAX_SIZE, Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.window import normal_axes
from qcompile.ops.pad import Pad, PadMode
from qcompile.ops.slice import Slice

MODES = {"constant": PadMode.CONSTANT, "edge": PadMode.EDGE, "reflect": PadMode.REFLECT}


def convert_pad(node: Node, builder: Builder) -> None:
    """Pad; negative pads cut, so they become a `Slice` before the padding."""
    x = builder.movable(node)
    shape = builder.shape(x)
    mode = MODES.get(node.text("mode", "constant"))
    if mode is None:
        node.refuse(f"mode '{node.text('mode', '')}'", "use constant, edge or reflect padding")
    begins, ends = _read_pads(node, builder, len(shape))
    value = 0.0
    if mode is PadMode.CONSTANT:
        given = node.real("value", 0.0) if node.opset < 11 else builder.scalar(node, 2, "value")
        value = 0.0 if given is None else given
        if not math.isfinite(value):
            node.refuse(
                f"padding with {value}", "use the pads of MaxPool, which ignore padded positions"
            )
    cuts = [max(0, -begin) for begin in begins], [max(0, -end) for end in ends]
    grows = any(pad > 0 for pad in (*begins, *ends))
    if any(cuts[0]) or any(cuts[1]):
        name, value_name = builder.part(node, "crop") if grows else (node.name, node.output)
        builder.move(
            Slice(
                name=name,
                inputs=(x,),
                outputs=(value_name,),
                starts=tuple(cuts[0]),
                sizes=tuple(
                    size - begin - end for size, begin, end in zip(shape, *cuts, strict=True)
                ),
                steps=(1,) * len(shape),
            )
        )
        x = value_name
        if not grows:
            return
    if not grows:
        builder.alias(node.output, x)
        return
    builder.move(
        Pad(
            name=node.name,
            inputs=(x,),
            outputs=(node.output,),
            begins=tuple(max(0, begin) for begin in begins),
            ends=tuple(max(0, end) for end in ends),
            mode=mode,
            value=value,
        )
    )


def _read_pads(node: Node, builder: Builder, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Begins and ends for every axis: attribute up to opset 10, inputs since, axes since 18."""
    axes: tuple[int, ...] | None = None
    if node.opset < 11:
        pads = node.integers("pads", ())
    else:
        pads = builder.integers(node, 1, "pads") or ()
        axes = builder.integers(node, 3, "axes") if node.opset >= 18 else None
    chosen = normal_axes(node, axes, rank) if axes is not None else tuple(range(rank))
    if len(pads) != 2 * len(chosen) or any(abs(pad) > MAX_SIZE for pad in pads):
        node.malformed(f"pads {list(pads)[:16]} do not fit {len(chosen)} axes")
    begins, ends = [0] * rank, [0] * rank
    for index, axis in enumerate(chosen):
        begins[axis] = pads[index]
        ends[axis] = pads[index + len(chosen)]
    return tuple(begins), tuple(ends)
