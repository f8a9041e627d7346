"""The arithmetic of the multiply-shift epilogue: from sums to codes, pipelined."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.parameter_rom import ParameterRom, delayed
from qcompile.hw.requantize_plan import MULTIPLIER_BITS, Plan, pieces, signed_bits
from qcompile.hw.streams import element_shape
from qcompile.numerics import clamp
from qcompile.types import IntType, Range

WIDEST_SELECT = 3
"""Bits of a shift amount that are applied in one stage."""


class MultiplyShift(wiring.Component):
    """Codes of `lanes` sums a cycle; free-running, without flow control.

    Stages: parameters are read (2 cycles from block RAM, else 1), meanwhile the sum is limited;
    branch selected (if there are two); product (none for a constant power of two; more where it has
    several pieces); bias; further shift (if shifts differ); clamp (if it can act); start (if codes
    begin elsewhere in each channel). Each ends in a register.

    Ports:
        word: which channels arrive: word * lanes .. word * lanes + lanes - 1.
        sums: the sums.
        codes: the results, `latency` cycles later.
    """

    def __init__(self, plan: Plan, accumulator: IntType, element: IntType, lanes: int) -> None:
        self._plan = plan
        self._lanes = lanes
        self._rom = ParameterRom(plan.columns(lanes))
        super().__init__(
            {
                "word": In(self._rom.word.shape()),
                "sums": In(data.ArrayLayout(element_shape(accumulator), lanes)),
                "codes": Out(data.ArrayLayout(element_shape(element), lanes)),
            }
        )

    @staticmethod
    def stages(plan: Plan, lanes: int) -> int:
        """Cycles from `sums` to `codes`."""
        columns = plan.columns(lanes)
        stages = 2 if ParameterRom.ram_bits(columns) else 1
        stages += plan.negative
        stages += _product_stages(plan)
        stages += 1
        stages += _select_stages(plan)
        return stages + plan.clamps + plan.moves

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rom = self._rom
        m.d.comb += self._rom.word.eq(self.word)
        for lane in range(self._lanes):
            line = _Lane(m, self._plan, self._rom, lane)
            line.take(Value.cast(self.sums[lane]))
            if self._plan.negative:
                line.choose_branch()
            if self._plan.powers:
                line.shift_left()
            else:
                line.multiply()
            line.add_bias()
            line.shift_right()
            if self._plan.clamps:
                line.limit()
            if self._plan.moves:
                line.add_start()
            assert line.at == self.stages(self._plan, self._lanes)
            m.d.comb += self.codes[lane].eq(line.value)
        return m


class _Lane:
    """One lane under construction: its value after `at` registers, with the parameters that are
    still to come as they are at that stage."""

    def __init__(self, m: Module, plan: Plan, rom: ParameterRom, lane: int) -> None:
        self.m = m
        self.plan = plan
        self.lane = lane
        self.at = rom.latency
        self.value: Value = Const(0)
        self.parameters = {name: rom.value(f"{name}_{lane}") for name in plan.parameters}

    def registered(self, value: Value, name: str, shape: object = None) -> Value:
        """A register that follows `value`."""
        shape = value.shape() if shape is None else shape
        register = Signal(shape, name=f"{name}_{self.lane}", reset_less=True)
        self.m.d.sync += register.eq(value)
        return register

    def end_stage(self) -> None:
        """The parameters follow the value, which has passed a register."""
        for name, value in self.parameters.items():
            later = f"{name}_{self.lane}_at{self.at}"
            self.parameters[name] = delayed(self.m, value, 1, later)
        self.at += 1

    def take(self, value: Value) -> None:
        """The sum, limited if that saves a multiplier, while the parameters are read."""
        if not value.shape().signed:
            value = Cat(value, 0).as_signed()
        bits = signed_bits(self.plan.sums)
        if self.plan.saturates:
            value = _saturated(value, bits)
        value = self.registered(value, "sum", signed(bits))
        self.value = delayed(self.m, value, self.at - 1, f"sum_{self.lane}")

    def choose_branch(self) -> None:
        below = self.value < self.parameters.pop("pivot")
        chosen: dict[str, Value] = {}
        for name in [name for name in self.parameters if name.startswith("negative_")]:
            first = self.parameters.pop(name)
            name = name.removeprefix("negative_")
            second = self.parameters.pop(name)
            chosen[name] = second
            if not (isinstance(first, Const) and _is(second, first.value)):
                chosen[name] = self.registered(Mux(below, first, second), f"chosen_{name}")
        self.value = self.registered(self.value, "chosen_sum")
        self.end_stage()
        self.parameters.update(chosen)

    def shift_left(self) -> None:
        """The product with zero or plus or minus a power of two, see `Branch`."""
        keep, flip = self.parameters.pop("keep"), self.parameters.pop("flip")
        product = self.value
        if not _is(keep, 1):
            product = Mux(keep, product, 0)
        if not _is(flip, 0):
            product = product ^ Mux(flip, Const(-1, signed(1)), Const(0, signed(1)))
        self.value = product << self.parameters.pop("exponent")
        if _product_stages(self.plan):
            self.value = self.registered(self.value, "product", self._product_shape)
            self.end_stage()

    def multiply(self) -> None:
        """The product: partial ones, then a tree of adders, a level a stage."""
        multiplier = self.parameters.pop("multiplier")
        parts = _partial_products(self.value, multiplier, self.plan)
        parts = [self.registered(part, f"product{k}") for k, part in enumerate(parts)]
        self.end_stage()
        while len(parts) > 1:
            sums = [sum(parts[k + 1 : k + 2], parts[k]) for k in range(0, len(parts), 2)]
            parts = [
                self.registered(total, f"sum{len(parts)}_{k}", self._product_shape)
                for k, total in enumerate(sums)
            ]
            self.end_stage()
        self.value = parts[0]

    def add_bias(self) -> None:
        total = signed(signed_bits(self.plan.totals.union(self.plan.products)))
        self.value = self.registered(self.value + self.parameters.pop("bias"), "total", total)
        self.end_stage()

    def shift_right(self) -> None:
        self.value = self.value >> self.plan.shift
        for step in range(_select_stages(self.plan)):
            first = step * WIDEST_SELECT
            extra = Value.cast(self.parameters["extra"])[first : first + WIDEST_SELECT]
            self.value = self.registered(self.value >> (extra << first), f"shifted{step}")
            self.end_stage()

    def limit(self) -> None:
        """Within low .. high."""
        low, high = self.parameters.pop("low"), self.parameters.pop("high")
        if isinstance(low, Const) and isinstance(high, Const):
            limited = _within(self.value, self.plan.shifted, Range(low.value, high.value))
        else:
            limited = clamp(self.value, low, high, Mux)
        codes = Range(min(self.plan.lows), max(self.plan.highs))
        self.value = self.registered(
            limited, "limited", Shape.cast(range(codes.low, codes.high + 1))
        )
        self.end_stage()

    def add_start(self) -> None:
        moved = self.value + self.parameters.pop("start")
        ends = self.plan.ends
        codes = Range(min(self.plan.starts), max(self.plan.starts) + self.plan.highs[0])
        if not moved.shape().signed:
            moved = Cat(moved, 0).as_signed()
        moved = _within(moved, codes, ends)
        self.value = self.registered(moved, "moved", Shape.cast(range(ends.low, ends.high + 1)))
        self.end_stage()

    @property
    def _product_shape(self) -> Shape:
        return signed(signed_bits(self.plan.products.union(Range(-1, 0))))


def _product_stages(plan: Plan) -> int:
    if not plan.powers:
        count = pieces(signed_bits(plan.sums)) * pieces(signed_bits(plan.factors))
        return 1 + (count - 1).bit_length()
    # A constant power of two is wiring.
    same = len({m for branch in plan.branches for m in branch.multipliers}) == 1
    return 0 if same and plan.factors.low > 0 else 1


def _select_stages(plan: Plan) -> int:
    return -(-max(plan.extra).bit_length() // WIDEST_SELECT)


def _is(value: Value, constant: int) -> bool:
    return isinstance(value, Const) and value.value == constant


def _within(value: Value, values: Range, limits: Range) -> Value:
    """A signed `value` of `values`, limited to constants, where it can exceed them; if these are
    all of a type, the upper bits decide."""
    if limits.contains(values):
        return value
    whole = IntType.holding(limits)
    if whole.range == limits:
        return _saturated(value, whole.bits, whole.signed)
    result = value
    if values.high > limits.high:
        result = Value.cast(Mux(value > limits.high, limits.high, result))
    if values.low < limits.low:
        result = Value.cast(Mux(value < limits.low, limits.low, result))
    return result


def _saturated(value: Value, bits: int, is_signed: bool = True) -> Value:
    """A signed `value` limited to an integer type of `bits` bits."""
    sign = value[-1]
    value = Cat(value, *(sign for _ in range(len(value), bits + 1)))
    upper = value[bits - 1 :] if is_signed else value[bits:]
    inside = upper == (Cat(sign for _ in range(len(upper))) if is_signed else 0)
    edge = Cat(~sign for _ in range(bits))
    if not is_signed:
        return Mux(inside, value[:bits], edge)
    return Mux(inside, value[:bits], edge ^ (1 << (bits - 1))).as_signed()


def _partial_products(sum_: Value, multiplier: Value, plan: Plan) -> list[Value]:
    """Products of operands that fit a hardware multiplier, each in its place."""
    step = MULTIPLIER_BITS - 1

    def split(value: Value, width: int) -> list[Value]:
        count = pieces(width)
        parts = [value[k * step : (k + 1) * step] for k in range(count - 1)]
        return [*parts, value[(count - 1) * step :].as_signed()]

    bits = signed_bits(plan.sums)
    sums = split(sum_, bits) if pieces(bits) > 1 else [sum_]
    width = signed_bits(plan.factors)
    factors = [multiplier]
    if pieces(width) > 1:
        wide = Const(multiplier.value, signed(width)) if isinstance(multiplier, Const) else None
        if wide is None:
            wide = (multiplier + Const(0, signed(width)))[:width].as_signed()
        factors = split(wide, width)
    return [(a * b) << (step * (i + j)) for i, a in enumerate(sums) for j, b in enumerate(factors)]
