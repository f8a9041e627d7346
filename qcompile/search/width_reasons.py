"""The reasons of a search in the form that the report takes."""

from __future__ import annotations

from qcompile.report.trade_off import WidthReason
from qcompile.search.found import Found
from qcompile.search.reasons import reasons


def width_reasons(found: Found) -> tuple[WidthReason, ...]:
    """One for each width that was free to choose, in order of the network."""
    return tuple(
        WidthReason(why.name, why.part.value, why.bits, why.error, why.narrower)
        for why in reasons(found)
    )
