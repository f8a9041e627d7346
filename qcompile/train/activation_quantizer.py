"""Activations as the compiled network will hold them: the grid of each value, its scale learned."""

from __future__ import annotations

import torch
from torch import Tensor

from qcompile.lowering.published import published_format
from qcompile.train.codes import em_codes, paper_codes
from qcompile.train.tensors import round_half_up, spread, straight_through
from qcompile.types import CodebookKind, TensorType


def quantize_activation(
    x: Tensor, scale: Tensor, kind: TensorType, limits: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """`x` rounded to the codes of a type and back, with gradients for `x` and `scale`.

    The gradient for `x` ends where the code saturates; that for the scale is the difference
    between code and x / scale, or the code itself where it saturates.

    Args:
        x: real numbers [N, C, ...].
        scale: one entry.
        kind: element and code book.
        limits: lowest and highest code of each channel; None takes those of the element.
    """
    steps = x / scale
    book = CodebookKind.UNIFORM if kind.codebook is None else kind.codebook.kind
    if book is CodebookKind.BINARY:
        sign = torch.where(steps.detach() < 0, -1.0, 1.0).to(x.dtype)
        return straight_through(sign, torch.clamp(steps, -1, 1)) * scale
    low, high = float(kind.integer.low), float(kind.integer.high)
    if limits is None:
        inside = torch.clamp(steps, low, high)
    else:
        ends = [spread(end.to(x.dtype), 1, x.ndim) for end in limits]
        inside = torch.minimum(torch.maximum(steps, ends[0]), ends[1])
    if book is CodebookKind.TERNARY:
        # Half a step is 0 on either side.
        plain = inside.detach()
        sign = (plain > 0.5).to(x.dtype) - (plain < -0.5).to(x.dtype)
        return straight_through(sign, inside) * scale
    q = published_format(kind)
    if q is not None:
        rule = paper_codes if book is CodebookKind.FXP_PAPER else em_codes
        codes = torch.clamp(rule(x.detach(), q), low, high)
        return straight_through(codes, inside) * scale
    return round_half_up(inside) * scale
