"""Weighted sum of two tensors, or of a tensor and constants."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Module, Signal, Value

from qcompile.hw.parameter_rom import ParameterRom
from qcompile.hw.pointwise import (
    Operand,
    Pointwise,
    PointwiseComponent,
    Term,
    is_shift_add,
    later,
    signed_digits,
    signed_sum,
    sum_stages,
)
from qcompile.hw.requantize_plan import pieces, signed_bits
from qcompile.types import Array, IntType, Range


@dataclass(frozen=True, slots=True)
class Add(Pointwise):
    """weights[0] * a + weights[1] * b for every element.

    A weight of up to four signed binary digits is shifts and adders in one tree with the sum; a
    wider one takes a multiplier in each lane. A constant operand is multiplied beforehand.

    Latency: `stages` + 1: a register at the input, one behind a multiplier if there is one, one
    behind every level of adders, and the output queue. Throughput: one beat a cycle.

    Attributes:
        a, b: TensorStreams of equal shape and lanes, or one of them a tuple of constants: one
            value, or one for each channel.
        weights: of a and b.
        accumulator: element of the output; holds every sum that occurs.
    """

    a: Operand
    b: Operand
    weights: tuple[int, int]
    accumulator: IntType

    def __post_init__(self) -> None:
        self.check()

    @property
    def constant_factor(self) -> int:
        return self.weights[0] if isinstance(self.a, tuple) else self.weights[1]

    @property
    def factors(self) -> tuple[int, ...]:
        """Weights of the computed operands, in the order of the ports."""
        pairs = zip((self.a, self.b), self.weights, strict=True)
        return tuple(weight for operand, weight in pairs if not isinstance(operand, tuple))

    @property
    def terms_at(self) -> int:
        """Stage after which the terms are added: all products and constants are there."""
        multiplied = not all(is_shift_add(factor) for factor in self.factors)
        return max(2 if multiplied else 1, self.constants_at)

    @property
    def stages(self) -> int:
        signs = [False] * bool(self.columns)
        for factor in self.factors:
            digits = signed_digits(factor) if is_shift_add(factor) else [(0, False)]
            signs += [negative for _, negative in digits]
        return self.terms_at + sum_stages(signs)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        a, b = self.operands(frames)
        return (self.weights[0] * a + self.weights[1] * b,)

    def create(self) -> AddComponent:
        return AddComponent(self)

    @property
    def multipliers(self) -> int:
        return self.streams[0].lanes * sum(
            pieces(signed_bits(stream.element.range)) * pieces(signed_bits(Range(factor, factor)))
            for stream, factor in zip(self.streams, self.factors, strict=True)
            if not is_shift_add(factor)
        )


class AddComponent(PointwiseComponent):
    """Hardware of `Add`. Ports: `i0`, `i1` if both operands are computed, and `o0`."""

    block: Add

    def results(self, m: Module, rom: ParameterRom | None) -> list[Value]:
        block = self.block
        results = []
        for lane in range(block.streams[0].lanes):
            terms: list[Term] = []
            for k, factor in enumerate(block.factors):
                name = f"operand{k}_{lane}"
                item = getattr(self, f"i{k}").payload[lane]
                if is_shift_add(factor):
                    value = later(m, item, block.terms_at, name)
                    terms += [(value, *digit) for digit in signed_digits(factor)]
                else:
                    value = later(m, item, block.terms_at - 1, name) * factor
                    product = Signal(value.shape(), name=f"product{k}_{lane}", reset_less=True)
                    m.d.sync += product.eq(value)
                    terms.append((product, 0, False))
            if rom is not None:
                constant = rom.value(f"lane{lane}")
                late = block.terms_at - block.constants_at
                terms.append((later(m, constant, late, f"constant_{lane}"), 0, False))
            results.append(signed_sum(m, terms, block.accumulator.bits, f"sum{lane}"))
        return results
