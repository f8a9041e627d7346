"""The fast integer kernels against the slow reference, in every element, without tolerance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qcompile import ops
from qcompile.numerics import Requantize
from qcompile.sim.executor import Executor
from qcompile.verify_integer import verify_integer_op
from tests.op_cases import CASES, OpCase, cases_of
from tests.sim.reference import run_reference


def outputs_agree(case: OpCase) -> None:
    expected = run_reference(case.graph, case.feeds)
    actual = Executor(case.graph).run(case.feeds)
    for value in case.graph.outputs:
        assert actual[value].dtype == expected[value].dtype, case.name
        np.testing.assert_array_equal(actual[value], expected[value], err_msg=case.name)


@pytest.mark.parametrize("stem", CASES)
def test_kernel_equals_reference(stem: str) -> None:
    for case in cases_of(stem):
        outputs_agree(case)


@pytest.mark.parametrize("stem", CASES)
def test_cases_obey_the_rules_of_the_integer_stage(stem: str) -> None:
    for case in cases_of(stem):
        for op in case.graph.ops:
            verify_integer_op(case.graph, op)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 9))
def test_kernel_equals_reference_for_more_seeds(seed: int) -> None:
    for stem in CASES:
        for case in cases_of(stem, seed):
            outputs_agree(case)


@pytest.mark.parametrize("stem", CASES)
def test_the_same_seed_makes_the_same_cases(stem: str) -> None:
    for first, second in zip(cases_of(stem), cases_of(stem), strict=True):
        assert first.graph.ops == second.graph.ops
        for value, data in first.feeds.items():
            np.testing.assert_array_equal(data, second.feeds[value])


def test_inputs_are_left_alone() -> None:
    for stem in CASES:
        for case in cases_of(stem)[:4]:
            before = {value: data.copy() for value, data in case.feeds.items()}
            Executor(case.graph).run(case.feeds)
            for value, data in case.feeds.items():
                np.testing.assert_array_equal(data, before[value], err_msg=case.name)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_rounding_off_by_one_is_noticed(change: int) -> None:
    """Moves the rounding half of every epilogue by one output step's last fraction bit or, where
    no case would show so little, by half a step; some element must change."""
    noticed = 0
    for stem in ("conv", "conv_transpose", "matmul", "add", "mul", "rescale"):
        for case in cases_of(stem):
            op = case.graph.ops[0]
            assert isinstance(op, ops.SumOp)
            if not isinstance(op.epilogue, Requantize):
                continue
            halves = tuple(
                bias
                + change * (1 << (op.epilogue.shifts[c if len(op.epilogue.shifts) > 1 else 0] - 1))
                for c, bias in enumerate(op.epilogue.biases)
            )
            wrong = dataclasses.replace(
                op, epilogue=dataclasses.replace(op.epilogue, biases=halves)
            )
            graph = dataclasses.replace(case.graph, ops=(wrong,))
            expected = Executor(case.graph).run(case.feeds)[op.output]
            noticed += not np.array_equal(Executor(graph).run(case.feeds)[op.output], expected)
    assert noticed > 50


def test_op_cases_contain_exact_ties_of_the_rounding() -> None:
    """One unit less in the bias changes a result, so that a wrong tie rule cannot hide."""
    noticed = 0
    for seed in range(3):
        for stem in ("rescale", "mul", "add"):
            for case in cases_of(stem, seed):
                op = case.graph.ops[0]
                assert isinstance(op, ops.SumOp)
                if not isinstance(op.epilogue, Requantize):
                    continue
                biases = tuple(bias - 1 for bias in op.epilogue.biases)
                wrong = dataclasses.replace(
                    op, epilogue=dataclasses.replace(op.epilogue, biases=biases)
                )
                graph = dataclasses.replace(case.graph, ops=(wrong,))
                expected = Executor(case.graph).run(case.feeds)[op.output]
                noticed += not np.array_equal(Executor(graph).run(case.feeds)[op.output], expected)
    assert noticed > 0
