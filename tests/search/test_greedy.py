from __future__ import annotations

import itertools

import numpy as np
import pytest

from qcompile.search.cost import Layer, LayerSum, bit_operations, weight_bits
from qcompile.search.greedy import (
    Choice,
    Limit,
    Part,
    filled_up,
    lowered,
    total_error,
    uniform,
    within,
)


def choice(name: str, **errors: float) -> Choice:
    return Choice((name, Part.WEIGHTS), {int(bits[1:]): error for bits, error in errors.items()})


def storage(sizes: dict[str, int]) -> LayerSum:
    layers = [Layer(name, size, size, 0, 8, (), 8) for name, size in sizes.items()]
    return LayerSum(layers, weight_bits)


def test_the_least_sensitive_layer_gives_up_its_bits_first() -> None:
    choices = [choice("a", b2=1.0, b4=0.1, b8=0.0), choice("b", b2=0.1, b4=0.01, b8=0.0)]
    cost = storage({"a": 10, "b": 10})
    steps = [tuple(widths.values()) for widths in lowered(choices, cost)]
    assert steps == [(8, 8), (8, 4), (4, 4), (4, 2), (2, 2)]


def test_what_is_left_over_is_used() -> None:
    # Lowering 'b' to 2 bits saves far more than is needed; 'a' gets its bits back.
    choices = [choice("a", b4=0.1, b8=0.0), choice("b", b2=5.0, b8=0.0)]
    cost = storage({"a": 10, "b": 100})
    low = {choices[0].slot: 4, choices[1].slot: 2}
    assert filled_up(choices, low, [Limit(cost, 300)]) == {choices[0].slot: 8, choices[1].slot: 2}


def test_a_budget_below_the_narrowest_plan_has_no_widths() -> None:
    choices = [choice("a", b2=1.0, b8=0.0)]
    assert within(choices, [Limit(storage({"a": 10}), 19)]) is None
    assert within(choices, [Limit(storage({"a": 10}), 20)]) == {choices[0].slot: 2}


@pytest.mark.parametrize("seed", range(8))
def test_greed_comes_close_to_the_best_of_all_plans(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = {name: int(generator.integers(5, 60)) for name in "abcd"}
    # Each bit less costs about four times the error, as rounding does.
    choices = [
        Choice(
            (name, Part.WEIGHTS),
            {bits: float(generator.uniform(0.5, 2) * 4.0 ** (8 - bits)) for bits in range(2, 9)},
        )
        for name in sizes
    ]
    cost = storage(sizes)
    budget = 4.0 * sum(sizes.values())
    found = within(choices, [Limit(cost, budget)])
    assert found is not None
    assert cost.total(found) <= budget
    plans = (
        dict(zip(found, bits, strict=True)) for bits in itertools.product(range(2, 9), repeat=4)
    )
    best = min(total_error(choices, plan) for plan in plans if cost.total(plan) <= budget)
    assert (
        best
        <= total_error(choices, found)
        <= min(total_error(choices, uniform(choices, 4)), 3 * best)
    )


def test_every_limit_holds_and_operations_count_both_factors() -> None:
    output = Choice(("a", Part.OUTPUT), {4: 0.5, 8: 0.0})
    choices = [choice("a", b4=0.2, b8=0.0), choice("b", b4=0.1, b8=0.0), output]
    layers = [Layer("a", 10, 100, 0, 8, (), 8), Layer("b", 10, 100, 0, 8, ("a",), 0)]
    bits, operations = LayerSum(layers, weight_bits), LayerSum(layers, bit_operations)
    slots = {item.slot: max(item.errors) for item in choices}
    assert operations.total(slots) == 2 * 100 * 64
    assert operations.change(slots, output.slot, 4) == -100 * 32
    assert operations.change(slots, choices[0].slot, 4) == -100 * 32
    assert within(choices, [Limit(bits, 160), Limit(operations, 9600)]) == {
        **slots,
        choices[1].slot: 4,
    }
    assert within(choices, [Limit(bits, 120), Limit(operations, 4800)]) == {
        choices[0].slot: 4,
        choices[1].slot: 4,
        output.slot: 4,
    }
    assert within(choices, [Limit(bits, 160, fixed=100)]) is None
