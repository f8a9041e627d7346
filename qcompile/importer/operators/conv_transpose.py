"""ConvTranspose."""

from __future__ import annotations

from qcompile.importer.builder import MAX_SIZE, Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.conv import read_bias, read_filters, read_groups, read_weights
from qcompile.importer.operators.window import explicit_pads, spatial_rank, steps
from qcompile.ops.conv_transpose import ConvTranspose


def convert_conv_transpose(node: Node, builder: Builder) -> None:
    """ConvTranspose, with constant weights [C, M / groups, *kernel] and bias."""
    x = builder.source(node)
    shape = builder.shape(x)
    weights, bias = read_weights(node, builder)
    rank = spatial_rank(node, shape)
    if weights.ndim != rank + 2:
        node.malformed(
            f"weights of shape {list(weights.shape)} for an input of shape {list(shape)}"
        )
    groups = read_groups(node)
    strides = steps(node, "strides", rank)
    dilations = steps(node, "dilations", rank)
    extra = node.integers("output_padding", (0,) * rank)
    if len(extra) != rank or not all(0 <= value <= MAX_SIZE for value in extra):
        node.malformed(f"output_padding {list(extra)[:16]} must be {rank} numbers, not negative")
    full = tuple(
        (size - 1) * stride + more + (k - 1) * dilation + 1
        for size, stride, more, k, dilation in zip(
            shape[2:], strides, extra, weights.shape[2:], dilations, strict=True
        )
    )
    pads = _pads(node, shape[2:], strides, full)
    inputs = [x, read_filters(node, builder, weights, 1, groups)]
    if bias is not None:
        filters = weights.shape[1] * groups
        if bias.shape != (filters,):
            node.malformed(f"bias of shape {list(bias.shape)} for {filters} filters")
        inputs.append(read_bias(node, builder, bias))
    builder.emit(
        ConvTranspose(
            name=node.name,
            inputs=tuple(inputs),
            outputs=(node.output,),
            strides=strides,
            pads_begin=pads[:rank],
            pads_end=pads[rank:],
            dilations=dilations,
            output_padding=extra,
            groups=groups,
        )
    )


def _pads(
    node: Node, spatial: tuple[int, ...], strides: tuple[int, ...], full: tuple[int, ...]
) -> tuple[int, ...]:
    """All begins, then all ends; from `output_shape` or auto_pad if the node has them.

    An output larger than `full`, the one without padding, is extended at its end, as onnxruntime
    does.
    """
    rank = len(spatial)
    mode = node.text("auto_pad", "NOTSET")
    pads = explicit_pads(node, rank)
    wanted = node.integers("output_shape", ())[-rank:]
    if not wanted and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(size * stride for size, stride in zip(spatial, strides, strict=True))
    if not wanted:
        return pads if mode == "NOTSET" else (0,) * (2 * rank)
    if len(wanted) != rank or not all(1 <= size <= MAX_SIZE for size in wanted):
        node.malformed(f"output_shape {list(wanted)[:16]} must be {rank} positive numbers")
    begins, ends = [], []
    for size, target in zip(full, wanted, strict=True):
        total = size - target
        small, large = max(0, total) // 2, max(0, total) - max(0, total) // 2
        begin = small if mode == "SAME_UPPER" else large
        begins.append(begin)
        ends.append(total - begin)
    return (*begins, *ends)
