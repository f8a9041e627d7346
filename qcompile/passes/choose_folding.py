"""Chooses how parallel each layer of a streaming accelerator is.

Before: for each operator its stages, one for each folding.      After: one stage for each.

    conv1  PE 1 SIMD 1: 147456 cycles, 1 multiplier      conv1  PE 2 SIMD 1
           PE 2 SIMD 1:  73728 cycles, 2 multipliers     conv2  PE 4 SIMD 4
           ...

A streaming network is as fast as its slowest stage, so a bound on the cycles of a frame is all that
ties the choices together: within it the cheapest stage of each operator is independent of the
others. The least bound that the limits allow is found by halving; the result is exact.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcompile.errors import QCompileError
from qcompile.hw.stage import Fold, Stage
from qcompile.hw.streams import Stream

DEFAULT_LANES = 4096
"""Lanes without multipliers where nothing else bounds them (some 9 LUTs each: about 40 000)."""


@dataclass(frozen=True, slots=True)
class FoldingLimits:
    """What the choice must keep to; None: no limit.

    With `cycles` the cheapest accelerator that is fast enough is chosen. Otherwise the fastest one
    within the other limits; without any limit the smallest one.

    Attributes:
        cycles: clock cycles of a frame.
        multipliers: hardware multipliers.
        ram_bits: memory of all stages (not of the FIFOs between them).
        lanes: products a cycle of all stages that use no multiplier (ternary weights and so on).
    """

    cycles: int | None = None
    multipliers: int | None = None
    ram_bits: int | None = None
    lanes: int | None = None


def cycles_for(target_fps: float, clock: float) -> int:
    """Cycles that a frame may take at `clock` MHz."""
    return max(1, math.floor(clock * 1e6 / target_fps))


@dataclass(frozen=True)
class _Choice:
    """A stage and what it costs. Its cycles take long to compute; `least_cycles` does not."""

    stage: Stage
    multipliers: int
    ram_bits: int
    lanes: int

    @functools.cached_property
    def least_cycles(self) -> int:
        """A lower bound of `cycles`: the beats of the busiest port."""
        blocks = self.stage.all_blocks
        ports: list[Stream] = [port for block in blocks for port in block.inputs + block.outputs]
        return max(port.beats for port in ports)

    @functools.cached_property
    def cycles(self) -> int:
        return max(self.least_cycles, self.stage.cycles)

    def fits(self, cycles: int, exact: bool) -> bool:
        """Whether it takes at most so many cycles; unless `exact`, judged by the lower bound."""
        return self.least_cycles <= cycles and (not exact or self.cycles <= cycles)

    @property
    def free_lanes(self) -> int:
        """Lanes that count against `FoldingLimits.lanes`."""
        return 0 if self.multipliers else self.lanes

    @property
    def price(self) -> tuple[int, int, int, int]:
        """Multipliers first, then memory, then logic; logic first where it is all there is."""
        if not self.multipliers:
            return 0, self.lanes, self.ram_bits, self.least_cycles
        return self.multipliers, self.ram_bits, self.lanes, self.least_cycles


def _likely_speed(choice: _Choice) -> tuple[int, int]:
    """The fastest choice first, without computing true cycles."""
    return choice.least_cycles, -choice.lanes


def _choice(stage: Stage) -> _Choice:
    lanes = stage.fold.pe * stage.fold.simd
    return _Choice(stage, stage.multipliers, stage.ram_bits, lanes)


@dataclass(frozen=True)
class _Total:
    """What a set of choices uses."""

    multipliers: int
    ram_bits: int
    lanes: int

    @staticmethod
    def of(choices: Sequence[_Choice]) -> _Total:
        return _Total(
            sum(choice.multipliers for choice in choices),
            sum(choice.ram_bits for choice in choices),
            sum(choice.free_lanes for choice in choices),
        )

    def lacking(self, limits: FoldingLimits) -> list[str]:
        """What is missing, in words; empty if the limits are kept."""
        rows = (
            (self.multipliers, limits.multipliers, "multipliers"),
            (self.ram_bits, limits.ram_bits, "RAM bits"),
            (self.lanes, limits.lanes, "lanes of logic"),
        )
        return [
            f"{used} {what}, {used - limit} more than the {limit} there are"
            for used, limit, what in rows
            if limit is not None and used > limit
        ]


@dataclass(frozen=True, slots=True)
class ChooseFolding:
    """Chooses one stage for each operator.

    Attributes:
        limits: what to keep to.
        fixed: operator name -> folding that was asked for.
    """

    limits: FoldingLimits = FoldingLimits()
    fixed: Mapping[str, Fold] = field(default_factory=dict)

    def run(self, candidates: Mapping[str, Sequence[Stage]]) -> dict[str, Stage]:
        """Operator name -> its stage.

        Raises:
            QCompileError: the limits cannot be kept; says what is lacking.
        """
        layers = {name: self._layer(name, stages) for name, stages in candidates.items()}
        if not layers:
            return {}
        limits = self._limits(layers)
        if limits.cycles is not None:
            chosen = self._within(layers, limits, limits.cycles)
        else:
            chosen = self._fastest(layers, limits)
        return {name: choice.stage for name, choice in zip(layers, chosen, strict=True)}

    def _layer(self, name: str, stages: Sequence[Stage]) -> list[_Choice]:
        """The choices of one operator, the cheapest first."""
        wanted = self.fixed.get(name)
        kept = [stage for stage in stages if wanted is None or stage.fold == wanted]
        if not kept:
            raise ValueError(f"{name} has no folding {wanted}")
        return sorted((_choice(stage) for stage in kept), key=lambda choice: choice.price)

    def _limits(self, layers: Mapping[str, list[_Choice]]) -> FoldingLimits:
        """The limits, and a bound on cycles or logic where they leave everything open."""
        limits = self.limits
        if limits.cycles is not None:
            return limits
        if limits == FoldingLimits():
            # The layers that are not fixed need not be faster than those that are.
            fixed = [row[0].cycles for name, row in layers.items() if name in self.fixed]
            fastest = (min(row, key=_likely_speed) for row in layers.values())
            smallest = (row[0] for row in layers.values())
            bounds = fixed + [choice.cycles for choice in (fastest if fixed else smallest)]
            return FoldingLimits(cycles=max(bounds))
        if limits.lanes is None and not any(
            choice.multipliers for choices in layers.values() for choice in choices
        ):
            return FoldingLimits(None, limits.multipliers, limits.ram_bits, DEFAULT_LANES)
        return limits

    def _within(
        self, layers: Mapping[str, list[_Choice]], limits: FoldingLimits, cycles: int
    ) -> list[_Choice]:
        """The cheapest choices that keep a bound on cycles."""
        chosen = _cheapest(layers, cycles, limits, exact=True)
        if chosen is None:
            fastest = {name: min(row, key=lambda c: c.cycles) for name, row in layers.items()}
            name = max(fastest, key=lambda name: fastest[name].cycles)
            raise QCompileError(_too_slow(fastest[name], cycles, name in self.fixed))
        lacking = _Total.of(chosen).lacking(limits)
        if lacking:
            raise QCompileError(_too_large(chosen, lacking, cycles, bool(self.fixed)))
        return chosen

    def _fastest(self, layers: Mapping[str, list[_Choice]], limits: FoldingLimits) -> list[_Choice]:
        """The choices of the least bound on cycles that keep the limits."""
        bounds = sorted({choice.least_cycles for row in layers.values() for choice in row})
        slowest = max(min(choice.least_cycles for choice in row) for row in layers.values())
        bounds = [bound for bound in bounds if bound >= slowest]
        low, high = 0, len(bounds) - 1
        while low < high:
            middle = (low + high) // 2
            if _keeps(layers, bounds[middle], limits, exact=False) is not None:
                high = middle
            else:
                low = middle + 1
        # From here on with true cycles. A choice can only change at a lower bound, or at the true
        # cycles of a choice that was looked at in vain: all of them are known.
        bound: float = bounds[low]
        while (chosen := _keeps(layers, int(bound), limits, exact=True)) is None:
            seen = (c.cycles for row in layers.values() for c in row if "cycles" in vars(c))
            bound = min((b for b in (*bounds, *seen) if b > bound), default=math.inf)
            if bound == math.inf:
                least = _cheapest(layers, bounds[-1], limits, exact=False)
                assert least is not None
                lacking = _Total.of(least).lacking(limits)
                raise QCompileError(_too_large(least, lacking, None, bool(self.fixed)))
        return chosen


def _keeps(
    layers: Mapping[str, list[_Choice]], cycles: int, limits: FoldingLimits, exact: bool
) -> list[_Choice] | None:
    """Choices that keep the bound and the limits, None if there are none."""
    chosen = _cheapest(layers, cycles, limits, exact)
    return None if chosen is None or _Total.of(chosen).lacking(limits) else chosen


def _cheapest(
    layers: Mapping[str, list[_Choice]], cycles: int, limits: FoldingLimits, exact: bool
) -> list[_Choice] | None:
    """The cheapest choices of at most so many cycles; None where an operator has none.

    They keep the limits if any choices do: where the cheapest ones need too much memory, more
    multipliers are traded for less memory.

    Args:
        exact: whether true cycles count, or their lower bounds.
    """
    chosen = []
    for row in layers.values():
        first = next((choice for choice in row if choice.fits(cycles, exact)), None)
        if first is None:
            return None
        chosen.append(first)
    if limits.ram_bits is None or _Total.of(chosen).ram_bits <= limits.ram_bits:
        return chosen
    fronts = [_front(row, cycles, exact) for row in layers.values()]
    return _trade(fronts, limits.multipliers) or chosen


def _front(row: Sequence[_Choice], cycles: int, exact: bool) -> list[_Choice]:
    """The choices of at most so many cycles that no other one beats in multipliers and memory.

    Logic that uses no multiplier is bounded by its lanes alone: of such choices the smallest.
    """
    front: list[_Choice] = []
    for choice in row:
        beaten = any(other.ram_bits <= choice.ram_bits or not choice.multipliers for other in front)
        if not beaten and choice.fits(cycles, exact):
            front.append(choice)
    return front


def _trade(fronts: Sequence[Sequence[_Choice]], budget: int | None) -> list[_Choice] | None:
    """The choices of least memory within a budget of multipliers; None if it is too small.

    least[m] is the least memory of the operators so far with at most m multipliers.
    """
    most = sum(max(choice.multipliers for choice in front) for front in fronts)
    budget = most if budget is None else min(budget, most)
    least = np.zeros(budget + 1)
    picks = []
    for front in fronts:
        options = np.full((len(front), budget + 1), np.inf)
        for index, choice in enumerate(front):
            if choice.multipliers <= budget:
                left = budget + 1 - choice.multipliers
                options[index, choice.multipliers :] = least[:left] + choice.ram_bits
        picks.append(options.argmin(axis=0))
        least = options.min(axis=0)
    if math.isinf(least[budget]):
        return None
    chosen = []
    # The fewest multipliers that reach the least memory.
    used = int(np.argmax(least == least[budget]))
    for front, pick in zip(reversed(fronts), reversed(picks), strict=True):
        choice = front[pick[used]]
        chosen.append(choice)
        used -= choice.multipliers
    return chosen[::-1]


def _too_slow(fastest: _Choice, cycles: int, fixed: bool) -> str:
    stage = fastest.stage
    where = "at the folding that was asked for" if fixed else "at its most parallel"
    way_out = "ask for more of it, or for" if fixed else "ask for"
    return (
        f"{stage.op.label()}: takes {fastest.cycles} cycles a frame {where} "
        f"(PE {stage.fold.pe}, SIMD {stage.fold.simd}), {fastest.cycles - cycles} more than the "
        f"{cycles} of the target; {way_out} fewer frames a second, or a faster clock"
    )


def _too_large(
    chosen: Sequence[_Choice], lacking: Sequence[str], cycles: int | None, fixed: bool
) -> str:
    slow = "at its least parallel" if cycles is None else f"to take {cycles} cycles a frame"
    if fixed:
        slow += " with the foldings that were asked for"
    largest = max(chosen, key=lambda choice: (choice.multipliers, choice.ram_bits))
    memory = max(chosen, key=lambda choice: choice.ram_bits)
    advice = "a smaller network or image, fewer bits, more --multipliers, or a larger device"
    if cycles is not None:
        advice = f"fewer frames a second, {advice}"
    if fixed:
        advice = f"smaller foldings in the file, {advice}"
    return (
        f"the accelerator needs {' and '.join(lacking)} {slow}; the most multipliers are those of "
        f"{largest.stage.op.label()} ({largest.multipliers}), the most memory that of "
        f"{memory.stage.op.label()} ({memory.ram_bits} bits); use {advice}"
    )
