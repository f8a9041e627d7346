"""Product of two tensors, or of a tensor and constants."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Module, Signal, Value

from qcompile.hw.parameter_rom import ParameterRom
from qcompile.hw.pointwise import (
    Operand,
    Pointwise,
    PointwiseComponent,
    is_shift_add,
    later,
    signed_digits,
    signed_sum,
    sum_stages,
)
from qcompile.hw.requantize_plan import pieces, signed_bits
from qcompile.types import Array, IntType, Range


@dataclass(frozen=True, slots=True)
class Multiply(Pointwise):
    """a * b for every element.

    Each lane has a multiplier, with a register at either end. Where every lane has a constant
    factor of its own (a scalar, or all channels in one beat) of up to four signed binary digits,
    all lanes are shifts and adders instead.

    Latency: `stages` + 1: those registers and the output queue. Throughput: one beat a cycle.

    Attributes:
        a, b: TensorStreams of equal shape and lanes, or one of them a tuple of constants: one
            value, or one for each channel.
        accumulator: element of the output; holds every product that occurs.
    """

    a: Operand
    b: Operand
    accumulator: IntType

    def __post_init__(self) -> None:
        self.check()

    @property
    def factors(self) -> tuple[int, ...]:
        """The constant of each lane if no lane needs a multiplier, else empty."""
        factors = []
        for values in self.columns.values():
            if any(value != values[0] for value in values) or not is_shift_add(values[0]):
                return ()
            factors.append(values[0])
        return tuple(factors)

    @property
    def factors_at(self) -> int:
        """Stage after which both factors are there."""
        return max(1, self.constants_at)

    @property
    def stages(self) -> int:
        if self.factors:
            return 1 + max(map(_adder_stages, self.factors))
        return self.factors_at + 1

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        a, b = self.operands(frames)
        return (a * b,)

    def create(self) -> MultiplyComponent:
        return MultiplyComponent(self)

    @property
    def multipliers(self) -> int:
        if self.factors:
            return 0
        ranges = [stream.element.range for stream in self.streams]
        if self.columns:
            ranges.append(Range(min(self.constants), max(self.constants)))
        first, second = (pieces(signed_bits(values)) for values in ranges)
        return self.streams[0].lanes * first * second


class MultiplyComponent(PointwiseComponent):
    """Hardware of `Multiply`. Ports: `i0`, `i1` if both operands are computed, and `o0`."""

    block: Multiply

    def results(self, m: Module, rom: ParameterRom | None) -> list[Value]:
        block = self.block
        ports = [getattr(self, f"i{k}") for k in range(len(block.streams))]
        results = []
        for lane in range(block.streams[0].lanes):
            if block.factors:
                factor = block.factors[lane]
                value = later(m, ports[0].payload[lane], 1, f"operand{lane}")
                terms = [(value, *digit) for digit in signed_digits(factor)]
                scaled = signed_sum(m, terms, block.accumulator.bits, f"sum{lane}")
                missing = block.stages - 1 - _adder_stages(factor)
                results.append(later(m, scaled, missing, f"result{lane}"))
                continue
            factors = [
                later(m, port.payload[lane], block.factors_at, f"operand{k}_{lane}")
                for k, port in enumerate(ports)
            ]
            if rom is not None:
                factors.append(rom.value(f"lane{lane}"))
            value = factors[0] * factors[1]
            product = Signal(value.shape(), name=f"product{lane}", reset_less=True)
            m.d.sync += product.eq(value)
            results.append(product)
        return results


def _adder_stages(factor: int) -> int:
    return sum_stages([negative for _, negative in signed_digits(factor)])
