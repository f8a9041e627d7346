"""Numbers as people read them, and axes that hold what they show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompile.report.html.names import short_names
from qcompile.report.html.scales import (
    amount_text,
    bits_swatch,
    bytes_text,
    linear_axis,
    log_axis,
    number,
    share_text,
    sqnr_swatch,
    tick_text,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (75_480, "75.5 kB"), (999_499, "999 kB"),
     (999_600, "1.00 MB"), (3_320_000, "3.32 MB"), (2e12, "2000 GB")],
)  # fmt: skip
def test_bytes(count: float, text: str) -> None:
    assert bytes_text(count) == text


def test_amounts_and_shares() -> None:
    assert amount_text(167_000_000) == "167 M"
    assert amount_text(12) == "12"
    assert tick_text(50_000) == "50 kB"
    assert share_text(0) == "0 %"
    assert share_text(1e-6) == "< 0.01 %"
    assert share_text(0.0123) == "1.23 %"
    assert share_text(0.5) == "50 %"
    assert number(-7.5) == "−7.5"
    assert number(12345.6) == "12346"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8), st.booleans())
def test_linear_axes_hold_their_values(values: list[float], zero: bool) -> None:
    axis = linear_axis(values, zero=zero)
    slack = 1e-6 * max(1.0, *map(abs, values))
    assert axis.low <= min(values) + slack
    assert axis.high >= max(values) - slack
    assert 2 <= len(axis.ticks) <= 9
    assert all(0 <= axis.place(value) <= 1 for value in values)
    if zero:
        assert axis.low <= 0 <= axis.high


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=8))
def test_logarithmic_axes_hold_their_values(values: list[int]) -> None:
    axis = log_axis(values)
    assert axis.low <= min(values)
    assert axis.high >= max(values)
    assert 1 <= len(axis.ticks) <= 10
    places = [axis.place(tick) for tick in axis.ticks]
    assert places == sorted(places)


def test_swatches() -> None:
    assert sqnr_swatch(9.99).label == "under 10"
    assert sqnr_swatch(10).label == "10 to 15"
    assert sqnr_swatch(99).label == "40 and more"
    assert sqnr_swatch(None).label == "not measured"
    assert bits_swatch(1).label == "1 bit"
    assert bits_swatch(32).label == "float"
    assert len({bits_swatch(bits).fill for bits in (1, 2, 3, 4, 5, 6, 7, 8, 16)}) == 9


def test_short_names_stay_different() -> None:
    names = ["/enc.0/enc.0.3/Conv", "/a/Conv", "/b/a/Conv", "/a/Conv_1", "a", "/d3/Add", "x\n<y>"]
    operators = ["Conv", "Conv", "Conv", "Conv", "MaxPool", "Add", "Conv"]
    assert short_names(names, operators) == [
        "enc.0.3", "/a/Conv", "b/a", "/a/Conv_1", "a", "d3/Add", "x\N{REPLACEMENT CHARACTER}<y>",
    ]  # fmt: skip
