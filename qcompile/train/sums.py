"""The sums of operators in torch, before bias, activation and epilogue.

The same functions serve real numbers and codes: on whole numbers in float64 they are exact as long
as no partial sum exceeds 2**53.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from qcompile.ops import AveragePool, Conv, ConvTranspose, LinearResize
from qcompile.train.tensors import pad_spatial, spread

MOST_SPATIAL_AXES = 3
"""torch has no convolution over more."""

_CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
)
_TRANSPOSED: tuple[Callable[..., Tensor], ...] = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def convolve(op: Conv, x: Tensor, weights: Tensor) -> Tensor:
    """Sums [N, M, *spatial] of x [N, C, *spatial] and weights [M, C / groups, *kernel]."""
    padded = pad_spatial(x, op.pads_begin, op.pads_end)
    run = _CONVOLUTIONS[x.ndim - 3]
    return run(padded, weights, None, op.strides, 0, op.dilations, op.groups)


def spread_out(op: ConvTranspose, x: Tensor, weights: Tensor) -> Tensor:
    """Sums [N, M, *spatial] of x and weights [C, M / groups, *kernel]."""
    run = _TRANSPOSED[x.ndim - 3]
    full = run(x, weights, None, op.strides, 0, 0, op.groups, op.dilations)
    begins = [-begin for begin in op.pads_begin]
    ends = [extra - end for extra, end in zip(op.output_padding, op.pads_end, strict=True)]
    return pad_spatial(full, begins, ends)


def window_sums(op: AveragePool, x: Tensor) -> Tensor:
    """Sums [N, C, *spatial] over the windows, padding being 0."""
    shape = op.infer_shape([tuple(x.shape)])
    views = window_views(op, x, shape[2:], 0.0)
    total = views[0].clone()
    for view in views[1:]:
        total = total + view
    return total


def window_views(
    op: AveragePool | None,
    x: Tensor,
    spatial: Sequence[int],
    value: float,
    *,
    kernel: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    begins: Sequence[int] | None = None,
) -> list[Tensor]:
    """For each position of the kernel what it meets at all output positions.

    Args:
        op: gives the window, unless the others do.
        x: [N, C, *spatial].
        spatial: sizes of the output.
        value: of the border; overhang included.
        kernel: sizes of the window.
        strides: of the window.
        dilations: of the window.
        begins: front padding.
    """
    if op is not None:
        kernel, strides, dilations, begins = op.kernel, op.strides, op.dilations, op.pads_begin
    assert kernel is not None
    assert strides is not None
    assert dilations is not None
    assert begins is not None
    ends = [
        (count - 1) * stride + dilation * (k - 1) + 1 - size - begin
        for size, count, k, stride, dilation, begin in zip(
            x.shape[2:], spatial, kernel, strides, dilations, begins, strict=True
        )
    ]
    padded = pad_spatial(x, begins, ends, value)
    views = []
    for tap in itertools.product(*map(range, kernel)):
        where = tuple(
            slice(t * dilation, t * dilation + (count - 1) * stride + 1, stride)
            for t, dilation, count, stride in zip(tap, dilations, spatial, strides, strict=True)
        )
        views.append(padded[(slice(None), slice(None), *where)])
    return views


def divisor_grid(op: AveragePool, x: Tensor) -> Tensor:
    """Each window's divisor [*spatial], in the dtype of `x`."""
    spatial = op.infer_shape([tuple(x.shape)])[2:]
    grid = torch.ones((1,) * len(spatial), dtype=x.dtype, device=x.device)
    for axis, counts in enumerate(op.divisors(tuple(x.shape[2:]), spatial)):
        vector = torch.tensor(counts, dtype=x.dtype, device=x.device)
        grid = grid * spread(vector, axis, len(spatial))
    return grid


def interpolate(
    op: LinearResize, x: Tensor, weights: Sequence[Sequence[tuple[float, float]]]
) -> Tensor:
    """Weighted sums of the taps along every spatial axis; nothing is rounded between the axes.

    Args:
        op: says which positions the taps read.
        x: [N, C, *spatial].
        weights: for each axis and output position the weights of the two taps.
    """
    result = x
    for index, (taps, pairs) in enumerate(zip(op.taps, weights, strict=True)):
        axis = index + 2
        size = result.shape[axis]
        if taps.first == tuple(range(size)) and all(pair == (1, 0) for pair in pairs):
            continue
        parts = []
        for positions, place in ((taps.first, 0), (taps.second, 1)):
            chosen = torch.tensor(positions, device=x.device)
            factors = torch.tensor([pair[place] for pair in pairs], dtype=x.dtype, device=x.device)
            part = torch.index_select(result, axis, chosen)
            parts.append(part * spread(factors, axis, x.ndim))
        result = parts[0] + parts[1]
    return result


def real_taps(op: LinearResize) -> list[list[tuple[float, float]]]:
    """The weights of `interpolate` for real numbers."""
    return [[(float(1 - weight), float(weight)) for weight in taps.weights] for taps in op.taps]
