from __future__ import annotations

import json
from pathlib import Path

import pytest

from qcompile.plan import Format, LayerPlan, Plan, Quantizer
from qcompile.search.measured import Measured
from qcompile.search.plan_json import plan_from_json, plan_to_json
from qcompile.search.store import Store, code_digest, default_folder, key_of

RESULT = Measured(bytes=120, bops=7, dice=0.5, dice_float=0.51, sqnr_db=20.25, seconds=1.5)


def test_a_result_comes_back_and_others_do_not(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    key = key_of("model", {"b": 1, "a": 2})
    assert key == key_of("model", {"a": 2, "b": 1}) != key_of("model", {"a": 2, "b": 2})
    assert store.get(key) is None
    store.put(key, RESULT)
    assert store.get(key) == RESULT
    assert store.get(key_of("other")) is None
    assert RESULT.drop == 0.01


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", '{"bytes": 1}', json.dumps({**RESULT.to_json(), "new": 1})]
)
def test_damaged_results_count_as_none(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    key = key_of("model")
    store.put(key, RESULT)
    next(tmp_path.rglob("*.json")).write_text(damage)
    assert store.get(key) is None


def test_nothing_on_disk_but_json(tmp_path: Path) -> None:
    Store(tmp_path).put(key_of("model"), RESULT)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"]


def test_the_cache_lies_where_the_user_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "qcompile" / "search"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "qcompile" / "search"


def test_the_code_has_one_digest() -> None:
    assert code_digest() == code_digest()
    assert len(code_digest()) == 64


def test_plans_travel_as_json() -> None:
    plan = Plan(
        {"x": LayerPlan(Format(8, Quantizer.SCALED), scale=1 / 255, signed=False)},
        {
            "a": LayerPlan(Format(6, Quantizer.FIXED), Format(2, Quantizer.TERNARY)),
            "b": LayerPlan(Format(32, Quantizer.SCALED)),
        },
    )
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


def test_quality_is_dice_then_sqnr_and_nothing_is_worse_than_refused() -> None:
    assert Measured(dice=0.5, sqnr_db=1).quality > Measured(dice=0.4, sqnr_db=9).quality
    assert Measured(sqnr_db=9).quality > Measured(sqnr_db=1).quality > Measured().quality
    assert Measured().quality > Measured(dice=0.9, refused="too large").quality
