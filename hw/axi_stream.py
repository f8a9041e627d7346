"""AXI4-Stream at the edge of an accelerator: whole bytes outside, tight beats inside."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.streams import TensorStream


def element_bytes(tensor: TensorStream) -> int:
    """Bytes that one element takes in `tdata`."""
    return (tensor.element.bits + 7) // 8


def data_bits(tensor: TensorStream) -> int:
    """Width of `tdata`: every lane in its own bytes, lane 0 lowest."""
    return 8 * element_bytes(tensor) * tensor.lanes


class RegisterSlice(wiring.Component):
    """Two places between two streams, so that no path crosses from one to the other.

    Ports: `i`, `o`. `i.ready`, `o.valid` and `o.payload` come from registers; `i.ready` is low in
    reset. Latency: one cycle. Throughput: one beat a cycle.
    """

    def __init__(self, layout: data.Layout) -> None:
        super().__init__(
            {"i": In(stream.Signature(layout)), "o": Out(stream.Signature(layout))},
        )
        self._layout = layout

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held = Signal(self._layout, reset_less=True)
        spare = Signal(self._layout, reset_less=True)
        spare_full = Signal()
        ready = Signal()
        take = Signal()
        move = Signal()
        spare_stays = Signal()
        m.d.comb += [
            self.i.ready.eq(ready),
            self.o.payload.eq(held),
            take.eq(self.i.valid & ready),
            move.eq(self.o.ready | ~self.o.valid),
            spare_stays.eq(~move & (spare_full | take)),
        ]
        m.d.sync += [spare_full.eq(spare_stays), ready.eq(~spare_stays)]
        with m.If(take):
            m.d.sync += spare.eq(self.i.payload)
        with m.If(move):
            m.d.sync += self.o.valid.eq(spare_full | take)
            with m.If(spare_full):
                m.d.sync += held.eq(spare)
            with m.Else():
                m.d.sync += held.eq(self.i.payload)
        return m


class FrameCounter(wiring.Component):
    """Counts the beats of a frame.

    Ports:
        step: a beat is transferred.
        last: that beat is (would be) the last of the frame; from a register.
    """

    def __init__(self, beats: int) -> None:
        super().__init__({"step": In(1), "last": Out(1, init=int(beats == 1))})
        self._beats = beats

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._beats > 1:
            count = Signal(range(self._beats))
            with m.If(self.step):
                m.d.sync += [
                    count.eq(Mux(self.last, 0, count + 1)),
                    self.last.eq(count == self._beats - 2),
                ]
        return m


class FrameInput(wiring.Component):
    """An AXI4-Stream slave that feeds one input of the accelerator.

    Frames are delimited by counting; `tlast` is checked. Where it comes early, the rest of the
    frame is filled with zeros, so that the next frame begins where the sender means it to. Where
    it does not come, the next beat begins the next frame: a sender without `tlast` works too.

    Ports:
        tdata, tvalid, tready, tlast: AXI4-Stream; each element in its own bytes, sign-extended
            (zero-extended if unsigned), lane 0 lowest.
        o: the frames.
        allow: a new frame may begin.
        begun: the first beat of a frame is offered to the accelerator (one cycle).
        early, late: `tlast` came early, or was missing on a last beat (one cycle).
        range: an element was no code of the input's type; its upper bits are dropped (one cycle).

    Latency: one cycle from `tvalid` to `o.valid`. Throughput: one beat a cycle.
    """

    def __init__(self, tensor: TensorStream) -> None:
        self._tensor = tensor
        super().__init__(
            {
                "tdata": In(data_bits(tensor)),
                "tvalid": In(1),
                "tready": Out(1),
                "tlast": In(1),
                "o": Out(tensor.signature),
                "allow": In(1),
                "begun": Out(1),
                "early": Out(1),
                "late": Out(1),
                "range": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tensor = self._tensor
        layout = data.StructLayout({"data": data_bits(tensor), "last": 1})
        m.submodules.slice = slice_ = RegisterSlice(layout)
        m.submodules.counter = counter = FrameCounter(tensor.beats)
        m.d.comb += [
            slice_.i.payload.data.eq(self.tdata),
            slice_.i.payload.last.eq(self.tlast),
            slice_.i.valid.eq(self.tvalid),
            self.tready.eq(slice_.i.ready),
        ]
        # `inside` follows the first offer, not its transfer: what is offered must stay.
        inside = Signal()
        filling = Signal()
        may_pass = Signal()
        moved = Signal()
        received = Signal()
        m.d.comb += [
            may_pass.eq(inside | self.allow),
            self.o.valid.eq(filling | (slice_.o.valid & may_pass)),
            slice_.o.ready.eq(self.o.ready & may_pass & ~filling),
            moved.eq(self.o.valid & self.o.ready),
            received.eq(moved & ~filling),
            counter.step.eq(moved),
        ]
        with m.If(moved & counter.last):
            m.d.sync += inside.eq(0)
        with m.Elif(self.o.valid):
            m.d.sync += inside.eq(1)
        with m.If(moved):
            m.d.sync += filling.eq((filling | slice_.o.payload.last) & ~counter.last)
        first = Signal(init=1)
        with m.If(self.o.valid):
            m.d.sync += first.eq(moved & counter.last)
        m.d.sync += [
            self.begun.eq(self.o.valid & first),
            self.early.eq(received & slice_.o.payload.last & ~counter.last),
            self.late.eq(received & ~slice_.o.payload.last & counter.last),
        ]
        wrong = []
        step = 8 * element_bytes(tensor)
        for lane in range(tensor.lanes):
            outer = slice_.o.payload.data[lane * step : (lane + 1) * step]
            inner = outer[: tensor.element.bits]
            m.d.comb += self.o.payload[lane].eq(Mux(filling, 0, inner))
            wrong.append(self._outside(outer, inner))
        m.d.sync += self.range.eq(received & Cat(wrong).any())
        return m

    def _outside(self, outer: Value, inner: Value) -> Value:
        """Whether the bytes of an element hold no code of its type."""
        element = self._tensor.element
        if element.signed:
            outside = outer.as_signed() != inner.as_signed()
        elif element.bits < len(outer):
            outside = outer[element.bits :].any()
        else:
            outside = Const(0, 1)
        return outside | (inner.as_signed() < element.low) if element.narrow else outside


class FrameOutput(wiring.Component):
    """An AXI4-Stream master behind one output of the accelerator.

    Ports:
        i: the frames.
        tdata, tvalid, tready, tlast: AXI4-Stream, `tlast` on the last beat of a frame; layout of
            `tdata` as in `FrameInput`.
        done: the last beat of a frame was taken (one cycle).

    Latency: one cycle. Throughput: one beat a cycle.
    """

    def __init__(self, tensor: TensorStream) -> None:
        self._tensor = tensor
        super().__init__(
            {
                "i": In(tensor.signature),
                "tdata": Out(data_bits(tensor)),
                "tvalid": Out(1),
                "tready": In(1),
                "tlast": Out(1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tensor = self._tensor
        # The slice holds the port's bits, not the codes: with the codes the port's upper bits would
        # be copies of its lower ones, which linters take for a combinational loop.
        layout = data.StructLayout({"data": data_bits(tensor), "last": 1})
        m.submodules.slice = slice_ = RegisterSlice(layout)
        m.submodules.counter = counter = FrameCounter(tensor.beats)
        m.d.comb += [
            slice_.i.payload.last.eq(counter.last),
            slice_.i.valid.eq(self.i.valid),
            self.i.ready.eq(slice_.i.ready),
            counter.step.eq(self.i.valid & slice_.i.ready),
            self.tvalid.eq(slice_.o.valid),
            self.tdata.eq(slice_.o.payload.data),
            self.tlast.eq(slice_.o.payload.last),
            slice_.o.ready.eq(self.tready),
        ]
        step = 8 * element_bytes(tensor)
        for lane in range(tensor.lanes):
            # Assignment extends by the signedness of the element.
            outer = slice_.i.payload.data[lane * step : (lane + 1) * step]
            m.d.comb += outer.eq(self.i.payload[lane])
        m.d.sync += self.done.eq(self.tvalid & self.tready & self.tlast)
        return m
