"""The IP: an accelerator with AXI4-Stream data ports and AXI4-Lite registers."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, ClockDomain, DomainRenamer, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.axi_stream import FrameInput, FrameOutput, data_bits
from qcompile.hw.control import Registers
from qcompile.hw.streams import TensorStream

LITE_IN = ("awaddr", "awvalid", "wdata", "wstrb", "wvalid", "bready", "araddr", "arvalid", "rready")
LITE_OUT = ("awready", "wready", "bresp", "bvalid", "arready", "rdata", "rresp", "rvalid")


class Top(wiring.Component):
    """Flat ports around a core whose ports are `i0`, ... and `o0`, ... (an `Accelerator`).

    The accelerator is reset by `aresetn` or by the soft reset, one cycle later than the registers;
    it is then as after power-up.

    Ports:
        aclk, aresetn: clock, and reset (low, synchronous, at least one cycle).
        {input}_tdata, _tvalid, _tready, _tlast: an AXI4-Stream slave for each name of `inputs`.
        {output}_tdata, _tvalid, _tready, _tlast: a master for each name of `outputs`.
        s_axil_*: AXI4-Lite slave of `Registers`. Tied to 0 it does nothing: frames flow.
    """

    def __init__(
        self,
        core: Elaboratable,
        inputs: Sequence[tuple[str, TensorStream]],
        outputs: Sequence[tuple[str, TensorStream]],
        build: int = 0,
    ) -> None:
        self._core = core
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._registers = Registers(
            [tensor for _, tensor in inputs], [tensor for _, tensor in outputs], build
        )
        self.address_bits = self._registers.address_bits
        members = {"aclk": In(1), "aresetn": In(1)}
        for (name, tensor), flow in [
            *((item, In) for item in self._inputs),
            *((item, Out) for item in self._outputs),
        ]:
            back = Out if flow is In else In
            members |= {
                f"{name}_tdata": flow(data_bits(tensor)),
                f"{name}_tvalid": flow(1),
                f"{name}_tready": back(1),
                f"{name}_tlast": flow(1),
            }
        lite = self._registers.signature.members
        members |= {f"s_axil_{name}": lite[name] for name in (*LITE_IN, *LITE_OUT)}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sync, core_domain = ClockDomain("sync", local=True), ClockDomain("core", local=True)
        sync.clk = core_domain.clk = self.aclk
        m.domains += [sync, core_domain]
        in_core = DomainRenamer("core")
        m.submodules.registers = registers = self._registers
        m.submodules.core = in_core(self._core)
        starting = Signal(init=1, reset_less=True)
        m.d.comb += [sync.rst.eq(~self.aresetn), core_domain.rst.eq(starting)]
        m.d.sync += starting.eq(~self.aresetn | registers.soft_reset)
        for name in LITE_IN:
            m.d.comb += getattr(registers, name).eq(getattr(self, f"s_axil_{name}"))
        for name in LITE_OUT:
            m.d.comb += getattr(self, f"s_axil_{name}").eq(getattr(registers, name))
        begun, done = [], []
        for index, (name, tensor) in enumerate(self._inputs):
            frames = FrameInput(tensor)
            m.submodules[name] = in_core(frames)
            self._connect(m, frames, name, ("tdata", "tvalid", "tlast"), ("tready",))
            wiring.connect(m, frames.o, getattr(self._core, f"i{index}"))
            m.d.comb += frames.allow.eq(registers.enable)
            begun.append(frames.begun)
            for error in ("early", "late", "range"):
                m.d.comb += getattr(registers, error)[index].eq(getattr(frames, error))
        for index, (name, tensor) in enumerate(self._outputs):
            results = FrameOutput(tensor)
            m.submodules[name] = in_core(results)
            self._connect(m, results, name, ("tready",), ("tdata", "tvalid", "tlast"))
            wiring.connect(m, getattr(self._core, f"o{index}"), results.i)
            done.append(results.done)
        m.d.comb += [
            registers.begun.eq(_all_of(m, begun, "begun")),
            registers.done.eq(_all_of(m, done, "done")),
        ]
        return m

    def _connect(
        self,
        m: Module,
        part: wiring.Component,
        name: str,
        inwards: tuple[str, ...],
        outwards: tuple[str, ...],
    ) -> None:
        for item in inwards:
            m.d.comb += getattr(part, item).eq(getattr(self, f"{name}_{item}"))
        for item in outwards:
            m.d.comb += getattr(self, f"{name}_{item}").eq(getattr(part, item))


def _all_of(m: Module, events: Sequence[Value], name: str) -> Value:
    """High for one cycle each time that every one of `events` has come once more."""
    if len(events) == 1:
        return events[0]
    waiting = [Signal(8, name=f"{name}_{index}") for index in range(len(events))]
    complete = Signal(name=f"{name}_all")
    m.d.comb += complete.eq(Cat(count.any() for count in waiting).all())
    m.d.core += [
        count.eq(count + event - complete) for count, event in zip(waiting, events, strict=True)
    ]
    return complete
