"""MaxPool, AveragePool and their global forms."""

from __future__ import annotations

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.pool_indices import emit_indices
from qcompile.importer.operators.window import Window, read_window, spatial_rank
from qcompile.ops.average_pool import AveragePool
from qcompile.ops.max_pool import MaxPool
from qcompile.ops.reduce_mean import ReduceMean


def convert_max_pool(node: Node, builder: Builder) -> None:
    """MaxPool, with its indices where something reads them."""
    x = builder.source(node)
    window = read_window(node, builder.shape(x), node.integers("kernel_shape", ()))
    if node.uses_output(1, builder.readers):
        emit_indices(node, builder, x, window, node.flag("ceil_mode"))
    _emit_max(node, builder, x, window, node.flag("ceil_mode"))


def convert_average_pool(node: Node, builder: Builder) -> None:
    """AveragePool."""
    x = builder.source(node)
    window = read_window(node, builder.shape(x), node.integers("kernel_shape", ()))
    builder.emit(
        AveragePool(
            name=node.name,
            inputs=(x,),
            outputs=(node.output,),
            kernel=window.kernel,
            strides=window.strides,
            pads_begin=window.pads_begin,
            pads_end=window.pads_end,
            dilations=window.dilations,
            ceil_mode=node.flag("ceil_mode"),
            count_include_pad=node.flag("count_include_pad"),
        )
    )


def convert_global_average_pool(node: Node, builder: Builder) -> None:
    """GlobalAveragePool: the mean over all spatial axes."""
    x = builder.source(node)
    rank = spatial_rank(node, builder.shape(x))
    builder.emit(
        ReduceMean(
            name=node.name, inputs=(x,), outputs=(node.output,), axes=tuple(range(2, rank + 2))
        )
    )


def convert_global_max_pool(node: Node, builder: Builder) -> None:
    """A MaxPool whose window is the whole input."""
    x = builder.source(node)
    rank = spatial_rank(node, builder.shape(x))
    ones, zeros = (1,) * rank, (0,) * rank
    _emit_max(node, builder, x, Window(builder.shape(x)[2:], ones, ones, zeros, zeros), False)


def _emit_max(node: Node, builder: Builder, x: str, window: Window, ceil_mode: bool) -> None:
    builder.emit(
        MaxPool(
            name=node.name,
            inputs=(x,),
            outputs=(node.output,),
            kernel=window.kernel,
            strides=window.strides,
            pads_begin=window.pads_begin,
            pads_end=window.pads_end,
            dilations=window.dilations,
            ceil_mode=ceil_mode,
        )
    )
