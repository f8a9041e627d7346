"""The search itself, on candidates whose worth and costs a formula gives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from qcompile.errors import GateError, QCompileError
from qcompile.graph import Graph
from qcompile.options import CompileOptions
from qcompile.passes.assign_formats import assign_formats
from qcompile.search.evaluator import Evaluator
from qcompile.search.found import Found
from qcompile.search.greedy import Choice, Part
from qcompile.search.measured import Measured
from qcompile.search.store import Store
from qcompile.search.trade_off_files import trade_off_files
from qcompile.search.trade_off_table import trade_off_points
from qcompile.search.widths import WidthSearch
from tests.passes.nets import Net

SIZES = {"first": 72, "a": 1152, "b": 2304, "c": 1152, "last": 16}
SENSITIVITY = {"first": 1.0, "a": 8.0, "b": 0.05, "c": 1.0, "last": 1.0}


def network() -> Graph:
    net = Net(x=(1, 1, 8, 8))
    first = net.conv("first", "x", 8)
    a = net.conv("a", first, 16)
    b = net.conv("b", a, 16)
    c = net.conv("c", b, 8)
    return net.graph(net.conv("last", c, 2, kernel=1, pad=0))


def noise(name: str, bits: int) -> float:
    return SENSITIVITY[name] * 4.0 ** (2 - bits)


class Formula:
    """A runner: Dice falls with the true noise, which may be other than what greed believes."""

    def __init__(self, surprise: Mapping[str, float] | None = None, refuse_below: int = 0) -> None:
        self.surprise = surprise or {}
        self.refuse_below = refuse_below
        self.runs = 0

    def run(self, jobs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, job in jobs.items():
            self.runs += 1
            yield name, self.result(job["plan"]["layers"]).to_json()

    def result(self, layers: Mapping[str, Any]) -> Measured:
        wbits = {name: layers[name]["weights"][0] for name in SIZES}
        outputs = {name: layers[name]["output"][0] for name in SIZES}
        if min(wbits.values()) < self.refuse_below:
            return Measured(refused="too narrow for this target")
        bits = sum(SIZES[name] * wbits[name] for name in SIZES)
        inputs = dict(zip(list(SIZES)[1:], outputs.values(), strict=False)) | {"first": 8}
        lost = sum(self.surprise.get(name, 1) * noise(name, wbits[name]) for name in SIZES)
        lost += sum(4.0 ** (1 - outputs[name]) for name in list(SIZES)[:-1])
        return Measured(
            bytes=100 + bits // 8,
            bops=sum(64 * SIZES[name] * wbits[name] * inputs[name] for name in SIZES),
            arena=5000 if max(outputs[name] for name in list(SIZES)[:-1]) <= 8 else 10000,
            mean_wbits=bits / sum(SIZES.values()),
            sqnr_db=30 - lost,
            dice=round(0.9 - lost / 100, 6),
            dice_float=0.9,
        )


def search(
    runner: Formula, store: Store | None = None, outputs: bool = False, **fields: Any
) -> Found:
    options = CompileOptions(data="d.npz", **fields)
    graph = network()
    plan = assign_formats(graph, options)
    choices = [
        Choice((name, Part.WEIGHTS), {bits: noise(name, bits) for bits in range(2, 9)})
        for name in "abc"
    ]
    if outputs:
        widths = [3, 4, 5, 6, 7, 8] + ([16] if options.abits == "16" else [])
        choices += [
            Choice((name, Part.OUTPUT), {bits: 4.0 ** (1 - bits) for bits in widths})
            for name in ("first", "a", "b")
        ]
    evaluator = Evaluator("formula", runner, store)
    return WidthSearch(graph, plan, options, choices, evaluator).run()


def test_the_best_plan_within_the_bytes_beats_the_uniform_ones() -> None:
    found = search(Formula(), max_bytes=2400)
    result = found.chosen.result
    assert found.chosen.candidate.mixed
    assert result.bytes <= 2400
    uniform = [t.result for t in found.tried if not t.candidate.mixed and t.result.bytes <= 2400]
    assert uniform
    assert all(result.dice > other.dice for other in uniform if result.dice and other.dice)
    widths = {name: bits for (name, _), bits in found.chosen.candidate.widths.items()}
    assert widths["a"] > widths["c"] > widths["b"]


@pytest.mark.parametrize("budget", [1800, 2400, 3300, "60%"])
@pytest.mark.parametrize("outputs", [False, True])
def test_never_worse_than_a_uniform_plan_of_its_cost(budget: int | str, outputs: bool) -> None:
    # What greed believes is wrong: the layer it thinks nothing of is the one that matters.
    runner = Formula(surprise={"b": 5000.0})
    fields = {"max_bops": budget if isinstance(budget, str) else budget * 4500}
    found = search(runner, outputs=outputs, **(fields if outputs else {"max_bytes": budget}))
    (name, most), *_ = found.budgets.items()
    assert getattr(found.chosen.result, name) <= most
    for wbits in range(2, 9):
        for abits in range(3, 9) if outputs else [8]:
            plain = CompileOptions(wbits="ternary" if wbits == 2 else wbits, abits=abits)
            layers = assign_formats(network(), plain).layers
            uniform = runner.result(
                {
                    key: {"weights": [v.weights.bits], "output": [v.output.bits]}
                    for key, v in layers.items()
                    if v.weights
                }
            )
            if getattr(uniform, name) <= most:
                assert found.chosen.result.quality >= uniform.quality


def test_a_limit_on_dice_finds_the_smallest_plan_that_keeps_it() -> None:
    found = search(Formula(), max_dice_drop=0.01)
    result = found.chosen.result
    assert result.drop is not None
    assert result.drop <= 0.01
    keeping = [t for t in found.tried if t.result.drop is not None and t.result.drop <= 0.01]
    assert result.bytes == min(item.result.bytes for item in keeping)
    assert result.bytes < min(item.result.bytes for item in keeping if not item.candidate.mixed)


def test_both_kinds_of_budget_hold_at_once() -> None:
    found = search(Formula(), max_bytes=2400, max_dice_drop=0.05)
    assert found.chosen.result.bytes <= 2400
    assert found.chosen.result.drop is not None
    assert found.chosen.result.drop <= 0.05
    with pytest.raises(GateError, match=r"no plan keeps --max-dice-drop 0\.001: the best of"):
        search(Formula(), max_bytes=1500, max_dice_drop=0.001)


def test_the_arena_is_kept_by_widths_of_a_byte() -> None:
    found = search(Formula(), outputs=True, max_arena=6000, max_bops="90%", abits=16)
    assert found.chosen.result.arena == 5000


def test_budgets_out_of_reach_say_what_is_needed() -> None:
    with pytest.raises(QCompileError, match=r"--max-bytes 500: out of reach, .* needs 1340 bytes"):
        search(Formula(), max_bytes=500)
    with pytest.raises(QCompileError, match="--max-arena 4999: out of reach"):
        search(Formula(), max_arena=4999)


def test_plans_the_target_refuses_are_passed_over() -> None:
    found = search(Formula(refuse_below=4), max_bytes=3000)
    assert not found.chosen.result.refused
    assert min(found.chosen.candidate.widths.values()) >= 4
    with pytest.raises(QCompileError, match="too narrow for this target"):
        search(Formula(refuse_below=9), max_bytes=3000)


def test_a_second_run_measures_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = Formula(), Formula()
    one = search(first, store, max_bytes=2400)
    two = search(second, store, max_bytes=2400)
    assert first.runs == one.measured == len(one.tried) == two.remembered
    assert second.runs == two.measured == 0
    assert two.chosen.candidate == one.chosen.candidate
    # Another budget shares what both need.
    three = search(Formula(), store, max_bytes=2000)
    assert three.remembered >= 7


class Interrupted(Formula):
    def run(self, jobs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for index, item in enumerate(super().run(jobs)):
            if index == 4:
                raise KeyboardInterrupt
            yield item


def test_what_was_measured_before_an_interruption_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search(Interrupted(), store, max_bytes=2400)
    found = search(Formula(), store, max_bytes=2400)
    assert found.remembered == 4


def test_the_files_say_what_was_tried_and_why() -> None:
    found = search(Formula(), max_bytes=2400)
    files = trade_off_files(found)
    document = json.loads(files["trade_off.json"])
    assert [plan["chosen"] for plan in document["plans"]].count(True) == 1
    assert all(plan["bytes"] <= 2400 for plan in document["plans"] if plan["fits"])
    assert len(document["plans"]) == len(found.tried)
    table = files["trade_off.md"]
    assert "bytes of at most 2,400" in table
    assert "best uniform plan is uniform" in table
    for name in "abc":
        assert f"| {name} | weights |" in table
    picture = files["trade_off.svg"]
    assert picture.startswith("<svg ")
    assert picture.count("<title>") == len(found.tried)
    points = trade_off_points(found)
    assert [point.chosen for point in points].count(True) == 1
    assert len(points) == len(found.tried)
