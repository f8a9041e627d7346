"""The arithmetic of the multiply-shift epilogue: from sums to codes, pipelined."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
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
    several pieces); bias; further shift (if shifts differ); clamp (if it can act). Each ends in a
    register.

    Ports:
        word: which channels arrive: word * lanes .. word * lanes + lanes - 1.
        sums: the sums.
        codes: the results, `latency` cycles later.
    """

    def __init__(self, plan: Plan, accumulator: IntType, element: IntType, lanes: int) -> None:
        self._plan = plan
        self._accumulator = accumulator
        self._element = element
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
        return stages + plan.clamps

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rom = self._rom
        m.d.comb += self._rom.word.eq(self.word)
        for lane in range(self._lanes):
            code, latency = self._lane(m, lane)
            assert latency == self.stages(self._plan, self._lanes)
            m.d.comb += self.codes[lane].eq(code)
        return m

    def _lane(self, m: Module, lane: int) -> tuple[Value, int]:
        """The pipeline of one lane, and its length."""
        plan, rom = self._plan, self._rom
        at = rom.latency
        taken = {name: rom.value(f"{name}_{lane}") for name in plan.parameters}

        def registered(value: Value, name: str, shape: object = None) -> Value:
            signal = Signal(
                value.shape() if shape is None else shape,
                name=f"{name}{lane}",
                reset_less=True,
            )
            m.d.sync += signal.eq(value)
            return signal

        def wait(cycles: int) -> None:
            for name, value in taken.items():
                taken[name] = delayed(m, value, cycles, f"{name}{lane}_at{at}")

        total: Value
        sum_shape = signed(signed_bits(plan.sums))
        sum_ = Value.cast(self.sums[lane])
        if not self._accumulator.signed:
            sum_ = Cat(sum_, 0).as_signed()
        if plan.saturates:
            sum_ = _saturated(sum_, sum_shape.width)
        sum_ = registered(sum_, "sum", sum_shape)
        sum_ = delayed(m, sum_, at - 1, f"sum{lane}")
        if plan.negative:
            below = sum_ < taken.pop("pivot")
            for name in [name for name in taken if name.startswith("negative_")]:
                other = taken.pop(name)
                name = name.removeprefix("negative_")
                taken[name] = _select(below, other, taken[name])
                if not isinstance(taken[name], Const):
                    taken[name] = registered(taken[name], f"chosen_{name}")
            taken["extra"] = delayed(m, taken["extra"], 1, f"extra{lane}")
            sum_ = registered(sum_, "chosen_sum")
            at += 1
        product_shape = signed(signed_bits(plan.products.union(Range(-1, 0))))
        if plan.powers:
            keep, flip = taken.pop("keep"), taken.pop("flip")
            exponent = taken.pop("exponent")
            product = sum_
            if not _is(keep, 1):
                product = Mux(keep, product, 0)
            if not _is(flip, 0):
                product = product ^ Mux(flip, Const(-1, signed(1)), Const(0, signed(1)))
            product = product << exponent
            if _product_stages(plan):
                product = registered(product, "product", product_shape)
                wait(1)
                at += 1
        else:
            multiplier = taken.pop("multiplier")
            parts = _partial_products(sum_, sum_shape.width, multiplier, plan)
            parts = [registered(part, f"product{k}_") for k, part in enumerate(parts)]
            wait(1)
            at += 1
            while len(parts) > 1:
                parts = [
                    registered(
                        parts[k] + parts[k + 1] if k + 1 < len(parts) else parts[k],
                        f"sum{len(parts)}_{k // 2}_",
                        product_shape,
                    )
                    for k in range(0, len(parts), 2)
                ]
                wait(1)
                at += 1
            product = parts[0]
        total_shape = signed(signed_bits(plan.totals.union(plan.products)))
        total = registered(product + taken.pop("bias"), "total", total_shape)
        wait(1)
        at += 1
        total = total >> plan.shift
        extra = taken["extra"]
        for step in range(_select_stages(plan)):
            part = Value.cast(extra)[step * WIDEST_SELECT : (step + 1) * WIDEST_SELECT]
            total = registered(total >> (part << (step * WIDEST_SELECT)), f"shifted{step}_")
            extra = delayed(m, extra, 1, f"extra{lane}_{step}")
            at += 1
        if plan.clamps:
            total = registered(self._limited(total), "code", element_shape(self._element))
            at += 1
        return total, at

    def _limited(self, value: Value) -> Value:
        """`value` within low .. high; where that is all of a type, its upper bits decide."""
        limits = Range(self._plan.low, self._plan.high)
        whole = IntType.holding(limits)
        if whole.range == limits:
            return _saturated(value, whole.bits, whole.signed)
        return clamp(value, limits.low, limits.high, Mux)


def _product_stages(plan: Plan) -> int:
    if not plan.powers:
        count = pieces(signed_bits(plan.sums)) * pieces(signed_bits(plan.factors))
        return 1 + (count - 1).bit_length()
    # A constant power of two is wiring.
    same = len({m for branch in plan.branches for m in branch.multipliers}) == 1
    return 0 if same and plan.factors.low > 0 else 1


def _select_stages(plan: Plan) -> int:
    return -(-max(plan.extra).bit_length() // WIDEST_SELECT)


def _select(condition: Value, first: Value, second: Value) -> Value:
    if isinstance(first, Const) and isinstance(second, Const) and first.value == second.value:
        return first
    return Mux(condition, first, second)


def _is(value: Value, constant: int) -> bool:
    return isinstance(value, Const) and value.value == constant


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


def _partial_products(sum_: Value, bits: int, multiplier: Value, plan: Plan) -> list[Value]:
    """Products of operands that fit a hardware multiplier, each in its place."""
    step = MULTIPLIER_BITS - 1

    def split(value: Value, width: int) -> list[Value]:
        count = pieces(width)
        parts = [value[k * step : (k + 1) * step] for k in range(count - 1)]
        return [*parts, value[(count - 1) * step :].as_signed()]

    sums = split(sum_, bits) if pieces(bits) > 1 else [sum_]
    width = signed_bits(plan.factors)
    factors = [multiplier]
    if pieces(width) > 1:
        wide = Const(multiplier.value, signed(width)) if isinstance(multiplier, Const) else None
        if wide is None:
            wide = (multiplier + Const(0, signed(width)))[:width].as_signed()
        factors = split(wide, width)
    return [(a * b) << (step * (i + j)) for i, a in enumerate(sums) for j, b in enumerate(factors)]
