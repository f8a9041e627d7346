"""What the attention layers of a network look at."""

from __future__ import annotations

from collections.abc import Mapping

from qcompile.errors import GraphError
from qcompile.graph import Graph, Stage
from qcompile.ops import LocalAttention2d
from qcompile.sim.executor import Executor
from qcompile.sim.local_attention2d import attention_map
from qcompile.types import Array


def attention_maps(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The integer weights of every `LocalAttention2d`, by operator name, for one input.

    Args:
        graph: of the integer stage.
        feeds: as `Executor.run` takes them.

    Returns:
        uint16 [heads, positions of the window, rows, columns]; the weights of a pixel's window are
        `levels` of `AttentionWidths` together, but for their rounding. Positions count along the
        window's rows.

    Raises:
        GraphError: the graph is of another stage.
        DataError: the feeds do not fit.
    """
    if graph.stage is not Stage.INTEGER:
        raise GraphError(f"graph '{graph.name}' is not lowered; its attention is not in integers")
    layers = [
        op
        for op in graph.ops
        if isinstance(op, LocalAttention2d) and not graph.output_type(op).is_float
    ]
    taps = {value for op in layers for value in op.inputs[:3]}
    values = Executor(graph).run(feeds, taps=taps)
    return {
        op.name: attention_map(
            op,
            [*(values[value] for value in op.inputs[:3]), graph.constants[op.inputs[3]]],
            graph.output_type(op),
        )
        for op in layers
    }
