"""Names of formats as options take them: widths, Q formats and quantizers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from qcompile.errors import UsageError

if TYPE_CHECKING:
    from qcompile.plan import Format

QUANTIZERS = (
    "scaled",
    "fixed",
    "ternary",
    "twn",
    "binary",
    "pow2",
    "dorefa",
    "fxp-paper",
    "fxp-em",
)
WIDTHS = ("2", "3", "4", "5", "6", "7", "8", "16", "32", "ternary", "binary")
TENSOR_WIDTHS = (*WIDTHS, *map(str, range(9, 16)))
"""Of one layer's output: between 8 and 16 bits are the scores and weights of attention."""
DEFAULT_WIDTH = "8"
_IMPLIED = {
    "ternary": ("ternary", DEFAULT_WIDTH),
    "twn": ("ternary", DEFAULT_WIDTH),
    "binary": ("binary", DEFAULT_WIDTH),
    "pow2": ("5", DEFAULT_WIDTH),
    "fxp-paper": ("4", "6"),
    "fxp-em": ("4", "6"),
}
"""Quantizer -> the widths of weights and activations where none is given: those of its paper."""
_NOT_FOR_ACTIVATIONS = ("pow2", "twn")
_NAMED_BY_WIDTH = ("ternary", "binary")
_ALIASES = {"wq": "wbits", "aq": "abits"}


def implied_widths(quantizer: str) -> tuple[str, str]:
    """Widths of weights and of activations where none is given."""
    return _IMPLIED.get(quantizer, (DEFAULT_WIDTH, DEFAULT_WIDTH))


def check_width(
    width: str, what: str, may_be_q: bool = True, widths: tuple[str, ...] = WIDTHS
) -> None:
    """
    Raises:
        UsageError: `width` is none of `widths`, nor (where that is allowed) a Q format.
    """
    if width in widths:
        return
    from qcompile.fixed_point import is_q_format, parse_q_format

    if may_be_q and is_q_format(width):
        parse_q_format(width, what)
        return
    form = ", binary or a fixed-point format such as Q0.4" if may_be_q else " or binary"
    raise UsageError(f"{what}: '{width}' is no width; use 2 to 8, 16, 32, ternary{form}")


def check_quantizer(name: str, what: str, activations: bool = False) -> None:
    """
    Raises:
        UsageError: `name` is none of `QUANTIZERS`, or not for activations.
    """
    if name not in QUANTIZERS:
        raise UsageError(f"{what}: '{name}' is no quantizer; use one of {', '.join(QUANTIZERS)}")
    if activations and name in _NOT_FOR_ACTIVATIONS:
        raise UsageError(f"{what}: {name} is for weights alone; use scaled or another quantizer")


def without_aliases(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A table of the configuration with `wbits` and `abits` for their other names, `wq` and `aq`.

    Raises:
        UsageError: it has both names of one.
    """
    for alias, name in _ALIASES.items():
        if alias in table and name in table:
            raise UsageError(f"{where}: '{alias}' and '{name}' are one key; keep one of them")
    return {_ALIASES.get(key, key): value for key, value in table.items()}


def any_verbatim(quantizers: Iterable[str | None]) -> bool:
    """Whether one of these has a rule that is meant to the letter, for weights as trained."""
    from qcompile.plan import Quantizer

    return any(name is not None and Quantizer(name).is_verbatim for name in quantizers)


def override_format(
    what: str,
    width: str | None,
    named: str | None,
    default: Format,
    quantizer: str,
    weights: bool,
) -> Format:
    """What a layer's own width and quantizer make of the general format.

    Args:
        what: the table entry, for messages.
        width: the layer's own width, None if it has none.
        named: the layer's own quantizer, None if it has none.
        default: the format of the general rule.
        quantizer: the quantizer in force where nothing names one.
        weights: of weights, else of activations.

    Raises:
        UsageError: the width does not fit the quantizer.
    """
    from qcompile.fixed_point import is_q_format
    from qcompile.plan import INTEGER_WIDTHS, SIGNS_ONLY, Quantizer, parse_format

    if width is None and named is None:
        return default
    rule = Quantizer(named if named is not None else quantizer)
    if not weights and named not in _NAMED_BY_WIDTH:
        rule = rule.of_activations
    if width is None:
        text = default.width_name
        if named in _NAMED_BY_WIDTH or (named == "twn" and weights):
            text = "ternary" if named == "twn" else str(named)
        elif default.q is not None:
            # As many digits, or the default where there is no such width.
            text = str(default.q.digits)
            text = text if default.q.digits in INTEGER_WIDTHS else DEFAULT_WIDTH
        return parse_format(text, rule, what, weights)
    if named is None and (rule in SIGNS_ONLY or (is_q_format(width) and not _takes_q(rule.value))):
        # A width of its own takes the layer out of a network-wide rule that has none such.
        rule = Quantizer.SCALED
    return parse_format(width, rule, what, weights)


def _takes_q(quantizer: str) -> bool:
    return quantizer in ("fixed", "fxp-paper", "fxp-em")
