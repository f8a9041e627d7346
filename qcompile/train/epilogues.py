"""The integer epilogue of sums in torch: `numerics.requantize` and `numerics.threshold`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qcompile.numerics import Epilogue, Requantize, Thresholds
from qcompile.train.tensors import spread

VectorOf = Callable[[Sequence[int]], Tensor]


def finish(epilogue: Epilogue, acc: Tensor, axis: int) -> Tensor:
    """Output codes (int64) of exact sums (int64) whose channels lie on `axis`."""

    def vector(values: Sequence[int]) -> Tensor:
        return spread(torch.tensor(values, dtype=torch.int64, device=acc.device), axis, acc.ndim)

    if isinstance(epilogue, Thresholds):
        result = torch.full_like(acc, epilogue.low)
        for limits in epilogue.thresholds:
            result = result + epilogue.step * (acc >= vector(limits)).to(torch.int64)
        return result
    return _requantized(epilogue, acc, vector)


def _requantized(epilogue: Requantize, acc: Tensor, vector: VectorOf) -> Tensor:
    a = torch.maximum(acc, vector(epilogue.acc_low))
    a = torch.minimum(a, vector(epilogue.acc_high))
    multiplier, bias = vector(epilogue.multipliers), vector(epilogue.biases)
    negative = epilogue.negative
    if negative is not None:
        below = a < vector(negative.pivots)
        multiplier = torch.where(below, vector(negative.multipliers), multiplier)
        bias = torch.where(below, vector(negative.biases), bias)
    codes = (a * multiplier + bias) >> vector(epilogue.shifts)
    codes = torch.maximum(codes, vector(epilogue.lows))
    return torch.minimum(codes, vector(epilogue.highs))
