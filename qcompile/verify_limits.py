"""Rules on `TensorType.limits`: they are well formed, and whoever writes a value keeps to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.errors import GraphError
from qcompile.graph import Graph, Op, Stage
from qcompile.numerics import Epilogue, Thresholds
from qcompile.ops import MOVEMENT
from qcompile.ops.code_limits import by_channel, moved_codes, moved_inputs
from qcompile.types import IntType, Range, TensorType


def verify_limits(graph: Graph) -> None:
    """Checks all limits of a graph but those of what its integer operators compute.

    Raises:
        GraphError: limits that no value or only a wrong one can keep.
    """
    for name, kind in graph.types.items():
        if kind.limits is not None:
            _verify_type(graph, name, kind)
    if graph.stage is Stage.FLOAT:
        return
    for op in graph.ops:
        output = graph.types[op.output]
        if isinstance(op, MOVEMENT) and output.limits is not None:
            types = [graph.types[name] for name in moved_inputs(op)]
            if not any(kind.is_float for kind in types):
                verify_codes(op, moved_codes(op, types), output)


def _verify_type(graph: Graph, name: str, kind: TensorType) -> None:
    limits = kind.limits
    assert limits is not None
    if not isinstance(kind.element, IntType):
        if kind.quantization is not None and kind.quantization.imported is not None:
            return  # a float on a grid that came with the model (AbsorbQuantizers)
        raise GraphError(f"graph '{graph.name}': value '{name}' is {kind}, but has limits of codes")
    channels = kind.shape[1] if kind.rank > 1 else 1
    if len(limits.low) not in (1, channels):
        raise GraphError(
            f"graph '{graph.name}': value '{name}' has limits of {len(limits.low)} channels, "
            f"but is {kind}"
        )
    codes = limits.range
    if not kind.element.range.contains(codes):
        raise GraphError(
            f"graph '{graph.name}': the limits {codes.low}..{codes.high} of value '{name}' "
            f"exceed its type {kind.element}"
        )
    if graph.stage is Stage.INTEGER and name in graph.inputs:
        raise GraphError(
            f"graph '{graph.name}': input '{name}' has limits; nothing keeps what a user "
            f"passes within them"
        )
    if graph.is_constant(name):
        data = graph.constants[name]
        rows = np.moveaxis(data, 1, 0) if kind.rank > 1 else data.reshape(1, -1)
        for channel, row in enumerate(rows):
            if row.size and not limits.at(channel).contains(Range(int(row.min()), int(row.max()))):
                raise GraphError(
                    f"graph '{graph.name}': constant '{name}' exceeds the limits of its type"
                )


def verify_codes(op: Op, produced: Sequence[Range], output: TensorType) -> None:
    """Checks that what `op` writes lies in the type of its output.

    Args:
        produced: the codes of each index of axis 1, or one range for all.

    Raises:
        GraphError: they do not.
    """
    if output.limits is None:
        return
    for channel, wanted in enumerate(by_channel(output)):
        found = produced[channel if len(produced) > 1 else 0]
        if not wanted.contains(found):
            raise GraphError(
                f"{op.label()}: writes codes {found.low}..{found.high} to channel {channel}, "
                f"outside of the output's limits {wanted.low}..{wanted.high}"
            )


def epilogue_codes(epilogue: Epilogue, sums: Range) -> list[Range]:
    """The codes of each channel that an epilogue makes of sums; one range if all are alike."""
    if not isinstance(epilogue, Thresholds):
        lows, highs = np.broadcast_arrays(epilogue.lows, epilogue.highs)
        return [Range(*ends) for ends in zip(lows.tolist(), highs.tolist(), strict=True)]
    rows = np.broadcast_arrays(*(np.array(row, object) for row in epilogue.thresholds))
    result = []
    for limits in zip(*rows, strict=True):
        reached = (sum(limit <= end for limit in limits) for end in (sums.low, sums.high))
        ends = [epilogue.low + epilogue.step * count for count in reached]
        result.append(Range(min(ends), max(ends)))
    return result
