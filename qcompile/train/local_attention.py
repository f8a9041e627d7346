"""Self-attention of every pixel over a window around it, as a layer that exports as one node."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Mode = Literal["dot", "per_channel"]


class LocalAttention2d(nn.Module):
    """Stand-alone self-attention in place of a convolution (Ramachandran et al. 2019, without
    dividing scores by a root).

    Queries, keys and values are 1 x 1 convolutions without bias of the input [N, in, H, W]; the
    output is [N, out, H, W]. Each pixel attends to the `kernel_size` x `kernel_size` window around
    it. The first half of the key channels gets an embedding of the row within the window, the
    second half one of the column. Positions outside of the image have keys and values of 0, and
    take part with their embeddings.

    `torch.onnx.export(..., dynamo=False)` writes a node `qcompile::LocalAttention2d` of opset 1
    (`custom_opsets={"qcompile": 1}`) for the attention, and ordinary ones for the convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        heads: int = 1,
        mode: Mode = "dot",
    ) -> None:
        """
        Args:
            in_channels: of the input.
            out_channels: of queries, keys, values and output.
            kernel_size: of the window; odd.
            heads: groups of output channels with scores of their own (mode `dot`).
            mode: `dot` sums scores over the channels of a head; `per_channel` has a softmax for
                every channel.

        Raises:
            ValueError: sizes that do not fit together.
        """
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} must be odd and positive")
        if mode not in ("dot", "per_channel"):
            raise ValueError(f"mode '{mode}' does not exist; use dot or per_channel")
        if heads < 1 or out_channels % heads:
            raise ValueError(f"{out_channels} channels are no multiple of {heads} heads")
        if mode == "per_channel" and heads != 1:
            raise ValueError("mode per_channel has a softmax for every channel; leave heads at 1")
        self.query = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.key = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.value = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        rows = out_channels // 2
        self.rel_h = nn.Parameter(torch.empty(rows, kernel_size, 1))
        self.rel_w = nn.Parameter(torch.empty(out_channels - rows, 1, kernel_size))
        self.kernel_size = kernel_size
        self.heads = out_channels if mode == "per_channel" else heads
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Embeddings with standard deviation 1 / sqrt(out_channels / heads)."""
        deviation = 1 / math.sqrt(self.query.out_channels / self.heads)
        nn.init.normal_(self.rel_h, std=deviation)
        nn.init.normal_(self.rel_w, std=deviation)

    def relative(self) -> Tensor:
        """The embeddings of all positions, [out, kernel_size, kernel_size]."""
        size = self.kernel_size
        rows = self.rel_h.expand(-1, size, size)
        return torch.cat([rows, self.rel_w.expand(-1, size, size)])

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, out, H, W]."""
        tensors = (self.query(x), self.key(x), self.value(x), self.relative())
        if torch.onnx.is_in_onnx_export():
            result: Tensor = _AsOneNode.apply(*tensors, self.heads)  # type: ignore[no-untyped-call]
            return result
        return local_attention(*tensors, self.heads)


def local_attention(q: Tensor, k: Tensor, v: Tensor, relative: Tensor, heads: int) -> Tensor:
    """The attention of queries [N, C, H, W] over windows of keys [N, C, H, W] and values
    [N, D, H, W], centred, with embeddings [C, kh, kw]; without unfolding keys or values."""
    rows, columns = relative.shape[1:]
    pads = ((columns - 1) // 2, columns // 2, (rows - 1) // 2, rows // 2)
    return window_attention(q, functional.pad(k, pads), functional.pad(v, pads), relative, heads)


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, relative: Tensor, heads: int, scale: float = 1.0
) -> Tensor:
    """`local_attention` for keys and values that are padded already."""
    batch, _, height, width = q.shape
    offsets = [(y, x) for y in range(relative.shape[1]) for x in range(relative.shape[2])]
    scores = []
    for y, x in offsets:
        keys = k[:, :, y : y + height, x : x + width] + relative[:, y, x].reshape(-1, 1, 1)
        scores.append((q * keys).reshape(batch, heads, -1, height, width).sum(2))
    weights = torch.softmax(torch.stack(scores) * scale, 0)
    total = torch.zeros_like(v[:, :, :height, :width]).reshape(batch, heads, -1, height, width)
    for weight, (y, x) in zip(weights, offsets, strict=True):
        values = v[:, :, y : y + height, x : x + width]
        total = total + values.reshape(total.shape) * weight[:, :, None]
    return total.reshape(batch, -1, height, width)


class _AsOneNode(torch.autograd.Function):
    """Stands for `local_attention` while a model is exported, where only shapes count."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, relative: Tensor, heads: int) -> Tensor:
        return torch.zeros_like(v)

    @staticmethod
    def symbolic(g: Any, q: Any, k: Any, v: Any, relative: Any, heads: int) -> Any:
        """The node that stands for `forward`."""
        kernel = relative.type().sizes()[1:]
        pads = [*((size - 1) // 2 for size in kernel), *(size // 2 for size in kernel)]
        node = g.op(
            "qcompile::LocalAttention2d",
            q,
            k,
            v,
            relative,
            kernel_shape_i=list(kernel),
            pads_i=pads,
            heads_i=heads,
        )
        return node.setType(v.type())
