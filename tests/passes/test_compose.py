"""Composed activations equal the two functions one after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.ops import IDENTITY, RELU, Activation
from qcompile.passes.compose import compose, shrink

CHANNELS = 3
NUMBERS = st.sampled_from([-2.0, -0.5, 0.0, 0.1, 1.0, 3.0])
VECTORS = st.one_of(
    st.tuples(NUMBERS), st.tuples(*[NUMBERS] * CHANNELS), st.just((1.0,)), st.just((0.0,))
)


@st.composite
def activations(draw: st.DrawFn) -> Activation:
    bounds = sorted(
        [
            draw(st.sampled_from([-math.inf, -1.0, 0.0])),
            draw(st.sampled_from([math.inf, 6.0, 0.5, 0.0])),
        ]
    )
    return Activation(
        slope=draw(VECTORS),
        gain=draw(VECTORS),
        shift=draw(VECTORS),
        low=bounds[0],
        high=bounds[1],
    )


@settings(max_examples=600, deadline=None)
@given(activations(), activations())
def test_composition_is_exact(first: Activation, second: Activation) -> None:
    fused = compose(first, second)
    if fused is None:
        return
    z = np.linspace(-20, 20, 161).reshape(1, 1, -1).repeat(CHANNELS, axis=1)
    expected = second.apply(first.apply(z, 1), 1)
    np.testing.assert_allclose(fused.apply(z, 1), expected, atol=1e-9)


def relu6() -> Activation:
    return Activation(low=0.0, high=6.0)


@pytest.mark.parametrize(
    ("first", "second", "fused"),
    [
        (IDENTITY, RELU, RELU),
        (RELU, RELU, RELU),
        (RELU, Activation(slope=(0.2,)), RELU),
        (Activation(slope=(0.5,)), Activation(slope=(0.5,)), Activation(slope=(0.25,))),
        (IDENTITY, Activation(slope=(0.1, 0.2)), Activation(slope=(0.1, 0.2))),
        (RELU, relu6(), Activation(slope=(0.0,), low=0.0, high=6.0)),
        (relu6(), RELU, relu6()),
        (
            RELU,
            Activation(gain=(2.0, -3.0), shift=(1.0, 0.5)),
            Activation(slope=(0.0,), gain=(2.0, -3.0), shift=(1.0, 0.5)),
        ),
        (
            Activation(low=0.0),
            Activation(gain=(2.0, 3.0)),
            Activation(slope=(0.0,), gain=(2.0, 3.0)),
        ),
        (relu6(), Activation(gain=(-2.0,)), Activation(gain=(-2.0,), low=-12.0, high=0.0)),
        (
            Activation(shift=(3.0,)),
            RELU,
            Activation(shift=(3.0,), low=0.0),
        ),
    ],
)
def test_known_pairs(first: Activation, second: Activation, fused: Activation) -> None:
    assert compose(first, second) == fused


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (relu6(), Activation(gain=(1.0, 2.0))),
        (Activation(shift=(1.0,)), Activation(slope=(0.1,))),
        (Activation(high=1.0), Activation(slope=(-1.0,))),
    ],
)
def test_pairs_that_are_two_functions(first: Activation, second: Activation) -> None:
    assert compose(first, second) is None


def test_shrink() -> None:
    assert shrink([2.0, 2.0]) == (2.0,)
    assert shrink([2.0, 3.0]) == (2.0, 3.0)
