"""Folding: the choice is the best there is, and what cannot be is said in numbers."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from qcompile.errors import QCompileError, UsageError
from qcompile.fold_file import fixed_folds, fold_text
from qcompile.graph import Op
from qcompile.hw.stage import Fold, Stage
from qcompile.passes.choose_folding import (
    ChooseFolding,
    FoldingLimits,
    cycles_for,
)
from tests.hw.flows import Model, image


def stage(name: str, fold: Fold, cycles: int, multipliers: int, ram_bits: int = 0) -> Stage:
    block = Model(
        sources=(image(1, 1),),
        target=image(1, 1),
        cost=cycles,
        products=multipliers,
        memory=ram_bits,
    )
    op = Op(name=name, inputs=("x",), outputs=(name,))
    return Stage(op, ("x",), (block,), fold, (np.ones(1, dtype=np.int64),))


def layer(name: str, work: int, *, ternary: bool = False, ram_bits: int = 1000) -> list[Stage]:
    """A layer of 8 x 8 channels in all foldings; memory grows a little with them."""
    return [
        stage(
            name,
            Fold(pe, simd),
            -(-work // (pe * simd)),
            0 if ternary else pe * simd,
            ram_bits + 10 * pe + simd,
        )
        for pe in (1, 2, 4, 8)
        for simd in (1, 2, 4, 8)
    ]


def slowest(chosen: dict[str, Stage]) -> int:
    return max(item.cycles for item in chosen.values())


def multipliers(chosen: dict[str, Stage]) -> int:
    return sum(item.multipliers for item in chosen.values())


def memory(chosen: dict[str, Stage]) -> int:
    return sum(item.ram_bits for item in chosen.values())


def random_layers(rng: np.random.Generator) -> dict[str, list[Stage]]:
    """Three layers of five unrelated choices: more parallel may even be slower."""
    return {
        f"l{index}": [
            stage(
                f"l{index}",
                Fold(int(lanes), 1),
                int(rng.integers(1, 60)),
                int(lanes) * int(rng.integers(0, 2)),
                int(rng.integers(0, 30)),
            )
            for lanes in rng.integers(1, 12, size=5)
        ]
        for index in range(3)
    }


def test_no_other_choice_is_faster_within_a_budget() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        layers = random_layers(rng)
        budget = int(rng.integers(0, 30))
        kept = [
            max(item.cycles for item in items)
            for items in itertools.product(*layers.values())
            if sum(item.multipliers for item in items) <= budget
        ]
        choose = ChooseFolding(FoldingLimits(multipliers=budget, lanes=10**6))
        if not kept:
            with pytest.raises(QCompileError, match="multipliers"):
                choose.run(layers)
            continue
        chosen = choose.run(layers)
        assert multipliers(chosen) <= budget
        assert slowest(chosen) == min(kept)


def test_no_other_choice_is_faster_within_multipliers_and_memory() -> None:
    rng = np.random.default_rng(1)
    reached = 0
    for _ in range(200):
        layers = {
            name: [item for item in items if item.multipliers]
            for name, items in random_layers(rng).items()
        }
        if not all(layers.values()):
            continue
        budget, ram_bits = int(rng.integers(5, 30)), int(rng.integers(10, 60))
        kept = [
            max(item.cycles for item in items)
            for items in itertools.product(*layers.values())
            if sum(item.multipliers for item in items) <= budget
            and sum(item.ram_bits for item in items) <= ram_bits
        ]
        choose = ChooseFolding(FoldingLimits(multipliers=budget, ram_bits=ram_bits))
        if not kept:
            with pytest.raises(QCompileError, match="more than the"):
                choose.run(layers)
            continue
        reached += 1
        chosen = choose.run(layers)
        assert multipliers(chosen) <= budget
        assert memory(chosen) <= ram_bits
        assert slowest(chosen) == min(kept)
    assert reached > 50


def test_target_takes_the_fewest_multipliers() -> None:
    layers = {"a": layer("a", 6400), "b": layer("b", 640)}
    chosen = ChooseFolding(FoldingLimits(cycles=400)).run(layers)
    assert [item.multipliers for item in chosen.values()] == [16, 2]
    assert slowest(chosen) <= 400


def test_equal_multipliers_take_less_memory() -> None:
    chosen = ChooseFolding(FoldingLimits(cycles=1600)).run({"a": layer("a", 6400)})
    assert chosen["a"].fold == Fold(1, 4)


def test_logic_is_no_faster_than_the_bottleneck() -> None:
    layers = {"a": layer("a", 6400), "t": layer("t", 6400, ternary=True)}
    chosen = ChooseFolding(FoldingLimits(multipliers=8)).run(layers)
    assert chosen["a"].multipliers == 8
    assert chosen["t"].fold.pe * chosen["t"].fold.simd == 8


def test_all_logic_keeps_a_number_of_lanes() -> None:
    layers = {"t": layer("t", 6400, ternary=True), "u": layer("u", 3200, ternary=True)}
    chosen = ChooseFolding(FoldingLimits(lanes=24)).run(layers)
    assert sum(item.fold.pe * item.fold.simd for item in chosen.values()) == 24


def test_without_limits_the_smallest() -> None:
    chosen = ChooseFolding().run({"a": layer("a", 6400), "b": layer("b", 100)})
    assert {item.fold for item in chosen.values()} == {Fold(1, 1)}


def test_others_keep_pace_with_a_fixed_layer() -> None:
    layers = {"a": layer("a", 6400), "b": layer("b", 6400)}
    chosen = ChooseFolding(fixed={"a": Fold(4, 4)}).run(layers)
    assert chosen["a"].fold == Fold(4, 4)
    assert chosen["b"].multipliers == 16


def test_target_out_of_reach_names_the_layer() -> None:
    layers = {"a": layer("a", 640), "slow": layer("slow", 6400)}
    with pytest.raises(QCompileError) as caught:
        ChooseFolding(FoldingLimits(cycles=90)).run(layers)
    for part in ("'slow'", "takes 100 cycles", "PE 8, SIMD 8", "10 more", "fewer frames"):
        assert part in str(caught.value)


def test_shortfall_has_numbers() -> None:
    layers = {"a": layer("a", 6400), "b": layer("b", 640)}
    limits = FoldingLimits(cycles=100, multipliers=50, ram_bits=1500)
    with pytest.raises(QCompileError) as caught:
        ChooseFolding(limits).run(layers)
    message = str(caught.value)
    assert "72 multipliers, 22 more than the 50 there are" in message
    assert "RAM bits" in message
    assert "'a' (64)" in message


def test_too_small_a_device_at_any_speed() -> None:
    with pytest.raises(QCompileError, match=r"2 multipliers, 1 more .* at its least parallel"):
        ChooseFolding(FoldingLimits(multipliers=1)).run({"a": layer("a", 64), "b": layer("b", 64)})


def test_cycles_for_a_rate() -> None:
    assert cycles_for(30.0, 100.0) == 3_333_333


FOLDS = {
    name: [Fold(pe, simd) for pe in (1, 2, 4) for simd in (1, 3)]
    for name in ("enc1/conv", "enc2/conv", "head")
}


def write(folder: Path, text: str) -> Path:
    path = folder / "fold.toml"
    path.write_text(text)
    return path


def test_fold_file_is_read_back(tmp_path: Path) -> None:
    folds = {"enc1/conv": Fold(2, 3), "enc2/conv": Fold(1, 1), "head": Fold(4, 1)}
    assert fixed_folds(write(tmp_path, fold_text(folds)), FOLDS) == folds


def test_names_go_before_patterns(tmp_path: Path) -> None:
    text = """
        [[layer]]
        name = "enc1/conv"
        pe = 4
        simd = 3
        [[layer]]
        name = "enc*"
        pe = 2
        simd = 1
    """
    expected = {"enc1/conv": Fold(4, 3), "enc2/conv": Fold(2, 1)}
    assert fixed_folds(write(tmp_path, text), FOLDS) == expected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("layer = 3", ["fold.toml", "[[layer]]"]),
        ("[[layer]]\npe = 1\nsimd = 1", ["fold.toml", "name"]),
        ("[other]\n", ["fold.toml", "unknown 'other'"]),
        ('[[layer]]\nname = "head"\npe = 1', ["'head'", "simd is missing"]),
        ('[[layer]]\nname = "head"\npe = true\nsimd = 1', ["'head'", "pe is True"]),
        ('[[layer]]\nname = "head"\npe = 0\nsimd = 1', ["'head'", "pe is 0"]),
        ('[[layer]]\nname = "head"\npe = 1\nsimd = 1\nx = 1', ["'head'", "unknown key 'x'"]),
        ('[[layer]]\nname = "haed"\npe = 1\nsimd = 1', ["'haed'", "such as 'head'"]),
        ('[[layer]]\nname = "head"\npe = 3\nsimd = 1', ["pe 3", "'head'", "1, 2, 4"]),
        ('[[layer]]\nname = "enc*"\npe = 2\nsimd = 2', ["simd 2", "enc1/conv", "1, 3"]),
        ("[[layer]", ["not valid TOML"]),
    ],
)
def test_wrong_fold_files(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        fixed_folds(write(tmp_path, text), FOLDS)
    for part in parts:
        assert part in str(caught.value)


def test_missing_fold_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        fixed_folds(tmp_path / "none.toml", FOLDS)
