"""What may be said of pruning, in flags, TOML and Python, and what plans repeat."""

from __future__ import annotations

import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from qcompile.config import load_config, resolve
from qcompile.errors import UsageError
from qcompile.options import CompileOptions
from qcompile.plan import Plan
from qcompile.plan_file import options_table, plan_text
from qcompile.prune_options import (
    Amount,
    PruneConstants,
    PruneMethod,
    PruneScope,
    parse_amount,
    parse_ratio,
    prunes,
)


@pytest.mark.parametrize(
    ("text", "value", "relative"),
    [
        ("50%", Fraction(1, 2), True),
        ("12.5%", Fraction(1, 8), True),
        ("100%", Fraction(1), True),
        ("300000", Fraction(300_000), False),
        ("300k", Fraction(300_000), False),
        (" 1.5G", Fraction(1_500_000_000), False),
        ("2M", Fraction(2_000_000), False),
    ],
)
def test_amounts(text: str, value: Fraction, relative: bool) -> None:
    assert parse_amount(text, "--prune-flops") == Amount(value, relative)


def test_amounts_of_a_whole() -> None:
    assert parse_amount("33%", "x").of(1000) == 330
    assert parse_amount("33", "x").of(1000) == 33


@pytest.mark.parametrize(
    "text", ["", "%", "0", "0%", "-3", "101%", "3 MB", "1e", "nan", "k", "1/0"]
)
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(UsageError, match=r"--prune-bytes: .* is no budget"):
        parse_amount(text, "--prune-bytes")


def test_ratios() -> None:
    assert parse_ratio("0.25") == 0.25
    assert parse_ratio("auto") == "auto"
    with pytest.raises(UsageError, match="'many' is no ratio"):
        parse_ratio("many")


def test_defaults_follow_from_what_is_given(tmp_path: Path) -> None:
    nothing = CompileOptions()
    assert not prunes(nothing)
    assert (nothing.prune_method, nothing.prune_refit) == (PruneMethod.AUTO, None)
    blind = CompileOptions(prune=0.3)
    assert (blind.prune_method, blind.prune_refit) == (PruneMethod.L1, False)
    seeing = CompileOptions(prune=0.3, calib="images")
    assert (seeing.prune_method, seeing.prune_refit) == (PruneMethod.ERROR, True)
    plain = CompileOptions(prune=0.3, calib="images", prune_refit=False)
    assert (plain.prune_method, plain.prune_refit) == (PruneMethod.ERROR, False)
    given = CompileOptions(prune=0.3, prune_importance=tmp_path / "scores.json")
    assert given.prune_method is PruneMethod.FILE
    assert prunes(CompileOptions(prune_flops="50%"))
    assert prunes(CompileOptions(prune_bytes=1000))  # type: ignore[arg-type]


def test_plain_values_from_python() -> None:
    options = CompileOptions(
        prune_flops=2_000_000,  # type: ignore[arg-type]
        prune_method="l2",  # type: ignore[arg-type]
        prune_scope="layer",  # type: ignore[arg-type]
        prune_constants="drop",  # type: ignore[arg-type]
        prune_exclude="enc*",  # type: ignore[arg-type]
    )
    assert options == CompileOptions(
        prune_flops="2000000",
        prune_method=PruneMethod.L2,
        prune_scope=PruneScope.LAYER,
        prune_constants=PruneConstants.DROP,
        prune_exclude=("enc*",),
    )


@pytest.mark.parametrize(
    ("fields", "fragment"),
    [
        ({"prune": 1.0}, "1.0 is no ratio"),
        ({"prune": float("nan")}, "is no ratio"),
        ({"prune": "half"}, "'half' is no ratio"),
        ({"prune_flops": "half"}, "--prune-flops: 'half' is no budget"),
        ({"prune_bytes": -1}, "--prune-bytes: '-1' is no budget"),
        ({"prune": 0.5, "prune_multiple": 0}, "--prune-multiple: 0 is out of range"),
        ({"prune": 0.5, "prune_exclude": ("",)}, "an empty pattern"),
        ({"prune": 0.5, "prune_method": "file"}, "go together"),
        ({"prune": 0.5, "prune_method": "l2", "prune_importance": "s.csv"}, "go together"),
        ({"prune": 0.5, "prune_method": "size"}, "'size' is unknown; use auto, error, taylor, l1"),
        ({"prune": 0.5, "prune_method": "taylor"}, "taylor: needs --calib or --data"),
        ({"prune": 0.5, "prune_method": "error"}, "--prune-method error: needs --calib"),
        ({"prune": 0.5, "prune_refit": True}, "--prune-refit: needs --calib"),
        ({"prune": "auto"}, "keeps --max-dice-drop on --data"),
        ({"prune": "auto", "data": "d.npz"}, "keeps --max-dice-drop on --data"),
        (
            {"prune": "auto", "data": "d.npz", "max_dice_drop": 0.1, "prune_flops": "50%"},
            "contradict each other",
        ),
    ],
)
def test_wrong_values(fields: dict[str, Any], fragment: str) -> None:
    with pytest.raises(UsageError) as caught:
        CompileOptions(**fields)
    assert fragment in str(caught.value)


TOML = """
[options]
calib = "images"
prune = 0.25
prune_method = "error"
prune_scope = "layer"
prune_constants = "drop"
prune_refit = false
prune_flops = "60%"
prune_bytes = 500000
prune_multiple = 8
prune_exclude = ["enc1/*", "head"]
"""


def test_toml_form(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(TOML)
    options = resolve({"config": path})
    assert options.prune == 0.25
    assert options.prune_method is PruneMethod.ERROR
    assert options.prune_scope is PruneScope.LAYER
    assert options.prune_constants is PruneConstants.DROP
    assert options.prune_refit is False
    assert (options.prune_flops, options.prune_bytes) == ("60%", "500000")
    assert (options.prune_multiple, options.prune_exclude) == (8, ("enc1/*", "head"))
    again = resolve({"config": path, "prune": 0.5, "prune_multiple": 4})
    assert (again.prune, again.prune_multiple) == (0.5, 4)


def test_the_file_of_scores_is_relative_to_the_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[options]\nprune = 0.5\nprune_importance = "scores.csv"\n')
    assert resolve({"config": path}).prune_importance == tmp_path / "scores.csv"


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("prune = true", "must be a number"),
        ("prune_flops = [1]", "must be a number"),
        ("prune_multiple = 1.5", "must be a whole number"),
        ("prune_exclude = 'a'", "must be a list"),
        ("prune_refit = 1", "must be true or false"),
        ("prune_scope = 'all'", "'all' is unknown; use global, layer"),
    ],
)
def test_wrong_toml(tmp_path: Path, line: str, fragment: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f"[options]\n{line}\n")
    with pytest.raises(UsageError) as caught:
        resolve({"config": path})
    assert fragment in str(caught.value)


def test_plans_repeat_what_was_pruned_and_say_nothing_where_nothing_was(tmp_path: Path) -> None:
    options = CompileOptions(
        prune=0.25, calib="images", prune_flops="60%", prune_multiple=8, prune_exclude=("a",)
    )
    table = options_table(options)
    assert {key: value for key, value in table.items() if key.startswith("prune")} == {
        "prune": 0.25,
        "prune_method": "error",
        "prune_refit": True,
        "prune_flops": "60%",
        "prune_multiple": 8,
        "prune_exclude": ["a"],
    }
    path = tmp_path / "plan.toml"
    path.write_text(plan_text(options, Plan()))
    fields = load_config(path)
    assert resolve({"config": path, "calib": "images"}).prune_method is PruneMethod.ERROR
    assert fields["prune_refit"] is True
    with pytest.raises(UsageError, match="needs --calib"):
        resolve({"config": path})
    nothing = tomllib.loads(plan_text(CompileOptions(), Plan()))["options"]
    assert [key for key in nothing if key.startswith("prune")] == ["prune"]
