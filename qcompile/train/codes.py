"""The named quantizers in torch: whole codes of real numbers, with straight-through gradients.

Each function is the formula of its namesake in `passes/quantizers/` (weights, as rows [channels,
n]) or in `qcompile/fixed_point.py`; tests compare the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from qcompile.fixed_point import EM_LOWEST, QFormat
from qcompile.passes.quantizers.pow2 import exponent_count
from qcompile.passes.quantizers.ternary import TWN_FACTOR
from qcompile.plan import Format, Quantizer
from qcompile.train.tensors import straight_through

Rule = Callable[[Tensor, Format], Tensor]


def ternary(rows: Tensor, chosen: Format) -> Tensor:
    """Signs times the magnitude of least squared error; the gradient passes unchanged."""
    plain = rows.detach()
    magnitudes = torch.sort(plain.abs(), dim=1, descending=True).values
    counts = torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype, device=rows.device)
    sums = torch.cumsum(magnitudes, dim=1)
    best = torch.argmax(torch.square(sums) / counts, dim=1, keepdim=True)
    limits = magnitudes.gather(1, best)
    scales = sums.gather(1, best) / counts[best]
    scales = torch.where(magnitudes[:, :1] == limits, magnitudes[:, :1], scales)
    signs = torch.where(plain.abs() >= limits, torch.sign(plain), 0.0)
    return straight_through(signs * scales, rows)


def twn(rows: Tensor, chosen: Format) -> Tensor:
    """Beyond +-0.7 mean|w| (strictly) the mean magnitude of what is beyond."""
    plain = rows.detach()
    magnitudes = plain.abs()
    kept = magnitudes > TWN_FACTOR * magnitudes.mean(dim=1, keepdim=True)
    counts = kept.sum(dim=1, keepdim=True).clamp(min=1)
    alphas = torch.where(kept, magnitudes, 0.0).sum(dim=1, keepdim=True) / counts
    return straight_through(torch.where(kept, torch.sign(plain), 0.0) * alphas, rows)


def binary(rows: Tensor, chosen: Format) -> Tensor:
    """Signs (zero counts as positive) times the mean magnitude of the row."""
    plain = rows.detach()
    scales = plain.abs().mean(dim=1, keepdim=True)
    scales = torch.where(scales > 0, scales, 1.0)
    return straight_through(torch.where(plain < 0, -scales, scales), rows)


def pow2(rows: Tensor, chosen: Format) -> Tensor:
    """0 and the powers of two that `--quantizer pow2` has, for the whole tensor."""
    plain = rows.detach()
    return straight_through(powers_of_two(plain, top_exponent(plain), chosen.bits), rows)


def top_exponent(weights: Tensor) -> int:
    """n1 of `pow2`: that of the largest power of two for a tensor."""
    largest = float(weights.abs().max()) or 1.0
    return math.floor(math.log2(4 * largest / 3))


def powers_of_two(weights: Tensor, top: int, bits: int) -> Tensor:
    """0 and +-2**n, n2 <= n <= n1, without gradient.

    Args:
        weights: of any shape; what is beyond the largest power becomes it.
        top: n1.
        bits: of a code: there are 2**(bits - 2) powers.
    """
    bottom = top + 1 - exponent_count(bits)
    mantissa, exponent = torch.frexp(weights.abs())
    # 2**n stands for 3/4 * 2**n up to 3/2 * 2**n, the smallest one for half of it.
    nearest = torch.where(mantissa >= 0.75, exponent, exponent - 1).clamp(bottom, top)
    powers = torch.ldexp(torch.ones_like(weights), nearest)
    powers = torch.where((exponent - 1 >= bottom - 1) & (weights != 0), powers, 0.0)
    return torch.sign(weights) * powers


def dorefa(rows: Tensor, chosen: Format) -> Tensor:
    """2 * round((2**k - 1) * (tanh(w) / (2 max|tanh(W)|) + 1/2)) / (2**k - 1) - 1; the gradient is
    that of the formula without the rounding."""
    steps = 2**chosen.bits - 1
    squashed = torch.tanh(rows)
    largest = squashed.abs().max()
    largest = torch.where(largest > 0, largest, 1.0)
    place = steps * (squashed / (2 * largest) + 0.5)
    codes = straight_through(2 * torch.round(place.detach()) - steps, 2 * place - steps)
    result: Tensor = codes * (1 / steps)
    return result


def paper_codes(reals: Tensor, q: QFormat) -> Tensor:
    """`fxp-paper` in steps of 2**-f, without gradient."""
    magnitude = reals.abs()
    whole = torch.floor(magnitude)
    steps = (magnitude - whole) * 2.0**q.fraction
    rounded = torch.round(steps) if q.fraction else torch.zeros_like(steps)
    kept = torch.clamp(whole, max=2.0**q.integer - 1) * 2.0**q.fraction
    return torch.sign(reals) * (kept + rounded)


def em_magnitudes(reals: Tensor, q: QFormat) -> Tensor:
    """`fxp-em` of the magnitudes of real numbers, without gradient."""
    mantissa, exponent = torch.frexp(reals.abs())
    # The square of a float32 mantissa needs float64.
    above = torch.square(mantissa.to(torch.float64)) >= 0.5
    nearest = torch.where(above, exponent, exponent - 1)
    powers = torch.ldexp(torch.ones_like(reals), nearest).clamp(max=q.em_clip)
    return torch.where(reals != 0, powers, 0.0)


def fxp_paper(rows: Tensor, chosen: Format) -> Tensor:
    """Sign and magnitude; no gradient where the magnitude is beyond the largest."""
    q = chosen.q
    assert q is not None
    largest = q.paper_largest * q.step
    codes = paper_codes(rows.detach(), q)
    return straight_through(codes * q.step, torch.clamp(rows, -largest, largest))


def fxp_em(rows: Tensor, chosen: Format) -> Tensor:
    """The nearest power of two by logarithm; no gradient beyond the clip."""
    q = chosen.q
    assert q is not None
    plain = rows.detach()
    reals = torch.sign(plain) * em_magnitudes(plain, q)
    return straight_through(reals, torch.clamp(rows, -q.em_clip, q.em_clip))


def em_codes(reals: Tensor, q: QFormat) -> Tensor:
    """`fxp-em` activations in steps of 2**-em_fraction, without gradient."""
    magnitudes = em_magnitudes(reals, q)
    magnitudes = torch.where(magnitudes < 2.0**EM_LOWEST, 0.0, magnitudes)
    return torch.sign(reals) * magnitudes * 2.0**q.em_fraction


RULES: Mapping[Quantizer, Rule] = {
    Quantizer.TERNARY: ternary,
    Quantizer.TWN: twn,
    Quantizer.BINARY: binary,
    Quantizer.POW2: pow2,
    Quantizer.DOREFA: dorefa,
    Quantizer.FXP_PAPER: fxp_paper,
    Quantizer.FXP_EM: fxp_em,
}
"""Quantizers of weights whose scales follow from the weights."""
