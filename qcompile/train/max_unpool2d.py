"""Unpooling to where the maxima were, as a layer that torch can export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[int, int]


class MaxUnpool2d(nn.Module):
    """`torch.nn.MaxUnpool2d`, which `torch.onnx.export` refuses.

    Takes the place of it behind a `MaxPool2d` with `return_indices=True`; it computes the same, and
    `torch.onnx.export(..., dynamo=False)` writes it as an ONNX `MaxUnpool` (opset 11 and later).
    """

    def __init__(
        self, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0
    ) -> None:
        """
        Args:
            kernel_size: of the pool.
            stride: of the pool; the kernel's size if None.
            padding: of the pool.
        """
        super().__init__()
        self.kernel_size = _pair(kernel_size)
        self.stride = self.kernel_size if stride is None else _pair(stride)
        self.padding = _pair(padding)

    def forward(
        self, x: Tensor, indices: Tensor, output_size: Sequence[int] | None = None
    ) -> Tensor:
        """[N, C, h, w] and the pool's indices of that shape -> [N, C, H, W].

        Args:
            x: what is put where the maxima were.
            indices: second result of the pool.
            output_size: shape of what was pooled, whole or its last two axes. Needed where strides
                do not divide it: (h - 1) * stride - 2 * padding + kernel is taken without.
        """
        sizes = zip(x.shape[2:], self.stride, self.padding, self.kernel_size, strict=True)
        given = output_size or [(n - 1) * step - 2 * pad + k for n, step, pad, k in sizes]
        # While a model is traced, sizes are tensors.
        height, width = (int(size) for size in given[-2:])
        geometry = (self.kernel_size, self.stride, self.padding)
        if torch.onnx.is_in_onnx_export():
            result: Tensor = _AsOneNode.apply(x, indices, (height, width), *geometry)  # type: ignore[no-untyped-call]
            return result
        unpooled: Tensor = functional.max_unpool2d(x, indices, *geometry, [height, width])
        return unpooled


class _AsOneNode(torch.autograd.Function):
    """Stands for the layer while a model is exported, where only shapes count."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, indices: Tensor, size: Pair, kernel: Pair, stride: Pair, padding: Pair
    ) -> Tensor:
        return x.new_zeros(*x.shape[:2], *size)

    @staticmethod
    def symbolic(
        g: Any, x: Any, indices: Any, size: Pair, kernel: Pair, stride: Pair, padding: Pair
    ) -> Any:
        """torch counts indices within a channel, ONNX within the whole tensor."""
        batch, channels = x.type().sizes()[:2]
        shape = (batch, channels, *size)
        origins = torch.arange(batch * channels).reshape(batch, channels, 1, 1)
        offsets = g.op("Constant", value_t=origins * size[0] * size[1])
        node = g.op(
            "MaxUnpool",
            x,
            g.op("Add", indices, offsets),
            g.op("Constant", value_t=torch.tensor(shape)),
            kernel_shape_i=kernel,
            strides_i=stride,
            pads_i=padding * 2,
        )
        return node.setType(x.type().with_sizes(list(shape)))


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else value
