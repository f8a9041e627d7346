"""The files that a search leaves in the output folder."""

from __future__ import annotations

from qcompile.search.found import Found
from qcompile.search.trade_off_plot import trade_off_svg
from qcompile.search.trade_off_table import PLOT_FILE, to_json, to_markdown


def trade_off_files(found: Found) -> dict[str, str]:
    """File name -> content: the plot, the table with the reasons, and all numbers."""
    return {
        PLOT_FILE: trade_off_svg(found),
        "trade_off.md": to_markdown(found),
        "trade_off.json": to_json(found),
    }
