"""Fixed-point formats by name, and the two published quantizers of a fixed-point U-Net.

Q(i).(f) has i integer digits, f fraction digits and a sign of its own: codes in steps of 2**-f.
`fixed` saturates at -2**i and 2**i - 2**-f. The published variants (A. AskariHemmat et al., U-Net
Fixed-Point Quantization for Medical Image Segmentation, 2019) work on the magnitude:

    fxp-paper   min(floor|x|, 2**i - 1) + round(frac|x| * 2**f) / 2**f
    fxp-em      min(2**round(log2|x|), clip),  clip = 2**(i - 1) (0 if i = 0) + 1 - 2**-f

with the sign put back; `round` takes ties to the even neighbour, and a fraction of 0 digits is
dropped. So `fxp-paper` Q0.4 has the 33 levels -16/16..16/16 (a fraction above 31/32 becomes 1),
1.2 becomes 3/16 and 1.0 becomes 0; Q6.0 rounds towards zero and has the 127 levels -63..63.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from qcompile.errors import UsageError
from qcompile.types import Array

EM_LOWEST = -8
"""Activations of `fxp-em` end at 2**-8 (the published code knows no end); less becomes 0."""

MOST_DIGITS = 24
_FORM = re.compile(r"Q(-?\d{1,2})\.(-?\d{1,2})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class QFormat:
    """`integer` and `fraction` digits; the sign is extra."""

    integer: int
    fraction: int

    @property
    def digits(self) -> int:
        return self.integer + self.fraction

    @property
    def step(self) -> float:
        """What one code stands for."""
        return 2.0**-self.fraction

    def __str__(self) -> str:
        return f"Q{self.integer}.{self.fraction}"

    # fxp-paper ------------------------------------------------------------------------------

    @property
    def paper_largest(self) -> int:
        """The largest magnitude of `fxp-paper`, in steps: with a fraction it rounds up to 2**i."""
        return (1 << self.digits) - (1 if self.fraction == 0 else 0)

    def paper_codes(self, reals: Array) -> Array:
        """`fxp-paper` in steps of 2**-f, int64, of float64 numbers of any shape."""
        magnitude = np.abs(reals)
        whole = np.floor(magnitude)
        steps = np.rint((magnitude - whole) * 2.0**self.fraction) if self.fraction else 0.0
        kept = np.minimum(whole, 2.0**self.integer - 1) * 2.0**self.fraction
        return np.asarray(np.sign(reals) * (kept + steps)).astype(np.int64)

    # fxp-em ---------------------------------------------------------------------------------

    @property
    def em_clip(self) -> float:
        """The largest magnitude of `fxp-em`."""
        return (2.0 ** (self.integer - 1) if self.integer > 0 else 0.0) + 1 - 2.0**-self.fraction

    @property
    def em_fraction(self) -> int:
        """Fraction digits of the unit in which every level of an `fxp-em` activation is whole."""
        return max(-EM_LOWEST, self.fraction)

    def em_levels(self) -> tuple[int, ...]:
        """The magnitudes of `fxp-em` activations above 0, rising, in units of 2**-em_fraction."""
        unit = 1 << self.em_fraction
        clip = round(self.em_clip * unit)
        powers = [unit >> -n if n < 0 else unit << n for n in range(EM_LOWEST, self.integer + 1)]
        kept = [power for power in powers if power < clip]
        return (*kept, clip)

    def em_codes(self, reals: Array) -> Array:
        """`fxp-em` activations in steps of 2**-em_fraction, int64, of float64 numbers."""
        magnitudes = em_magnitudes(np.abs(reals), self.em_clip)
        magnitudes = np.where(magnitudes < 2.0**EM_LOWEST, 0.0, magnitudes)
        return np.asarray(np.sign(reals) * magnitudes * 2.0**self.em_fraction).astype(np.int64)


def em_magnitudes(magnitudes: Array, clip: float) -> Array:
    """`fxp-em` of float64 magnitudes: the nearest power of two by logarithm, at most `clip`.

    The nearest one by logarithm is decided exactly: x = m * 2**e with 1/2 <= m < 1 goes to 2**e
    where m**2 >= 1/2, else to 2**(e - 1).
    """
    mantissa, exponent = np.frexp(magnitudes)
    nearest = np.ldexp(1.0, np.where(mantissa * mantissa >= 0.5, exponent, exponent - 1))
    return np.where(magnitudes > 0, np.minimum(nearest, clip), 0.0)


def is_q_format(text: str) -> bool:
    """Whether a width is written as Q<i>.<f>."""
    return _FORM.fullmatch(text.strip()) is not None


def parse_q_format(text: str, what: str) -> QFormat:
    """'Q0.4' as a format.

    Args:
        text: as written.
        what: the option or table entry, for the message.

    Raises:
        UsageError: the text has another form, or there are too many or too few digits.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{what}: '{text}' is no fixed-point format; write it as Q0.4 or Q6.0")
    result = QFormat(int(found[1]), int(found[2]))
    if not 1 <= result.digits <= MOST_DIGITS:
        raise UsageError(
            f"{what}: {result} has {result.digits} digits; use 1 to {MOST_DIGITS} in all, "
            f"the sign is extra"
        )
    return result
