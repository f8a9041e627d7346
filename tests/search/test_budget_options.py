from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qcompile.config import load_config
from qcompile.errors import UsageError
from qcompile.options import CompileOptions

DROP = {"data": "d.npz", "max_dice_drop": 0.01}


@pytest.mark.parametrize(
    ("fields", "searches"),
    [
        ({}, False),
        (DROP, True),
        ({**DROP, "wbits": "8"}, False),
        ({**DROP, "abits": "8"}, False),
        ({**DROP, "quantizer": "ternary"}, False),
        ({**DROP, "quantizer": "fixed"}, True),
        ({**DROP, "mean_wbits": 3.0}, False),
        ({**DROP, "prune": "auto"}, False),
        ({"max_bytes": "50%"}, True),
        ({"max_bops": 1_000_000, "wbits": "6", "abits": 6}, True),
        ({**DROP, "max_arena": "20k", "wbits": "8"}, True),
    ],
)
def test_widths_are_searched_for_where_a_budget_stands_in_place_of_bits(
    fields: dict[str, Any], searches: bool
) -> None:
    assert CompileOptions(**fields).budgeted is searches


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_bytes": "few"}, "--max-bytes: 'few' is no budget"),
        ({"max_bytes": -5}, "--max-bytes: '-5' is no budget"),
        ({"max_bops": "120%"}, "--max-bops: '120%' is no budget"),
        ({"max_luts": "1k"}, "--max-luts: is for --target hdl"),
        ({"max_ram_bits": "1M"}, "--max-ram-bits: is for --target hdl"),
        ({"max_luts": "1k", "target": "hdl"}, "--max-luts: .* add --device"),
        ({"max_arena": "1k", "target": "hdl"}, "--max-arena: an accelerator has no arena"),
        ({"scheduler": "tcp://a:1"}, "--scheduler: there is nothing to search for"),
        ({"search_cache": "c"}, "--search-cache: there is nothing to search for"),
        ({"max_bytes": "1k", "scheduler": "here"}, "--scheduler: 'here' is no address"),
        ({"max_bytes": "1k", "quantizer": "pow2"}, "--quantizer pow2 has no widths"),
        ({"max_bytes": "1k", "wbits": "16"}, "at most 8, not 16"),
        ({"max_bytes": "1k", "mean_wbits": 3.0}, "--mean-wbits is a budget of its own"),
        ({"max_bytes": "1k", "prune": "auto", **DROP}, "--prune without a ratio"),
    ],
)
def test_wrong_values(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CompileOptions(**fields)


def test_budgets_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        '[options]\nmax_bytes = 1000\nmax_bops = "5%"\nmax_arena = "20k"\n'
        'scheduler = "tcp://a:1"\nsearch_cache = "kept"\n'
    )
    fields = load_config(path)
    options = CompileOptions(**fields)
    assert (options.max_bytes, options.max_bops, options.max_arena) == ("1000", "5%", "20k")
    assert (options.scheduler, options.search_cache) == ("tcp://a:1", tmp_path / "kept")
    assert options.budgeted
