"""Control and status registers behind an AXI4-Lite slave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.axi_stream import element_bytes
from qcompile.hw.streams import TensorStream

IDENTITY = 0x51434F4D
"""ASCII "QCOM": the value of register ID."""
VERSION = 0x0001_0000
"""Major and minor version of this register map."""
MOST_TENSORS = 8
"""Inputs, and outputs, that the register map has room for."""
TENSORS_AT = 0x40


@dataclass(frozen=True, slots=True)
class Register:
    """One 32-bit register. `access` is "r", "rw", or "rc" (write 1 to clear)."""

    name: str
    offset: int
    access: str
    text: str


REGISTERS = (
    Register("ID", 0x00, "r", "0x51434F4D, ASCII QCOM"),
    Register("VERSION", 0x04, "r", "version of this register map, major in bits 31:16"),
    Register("BUILD", 0x08, "r", "identifies network, quantization and folding"),
    Register(
        "CONTROL",
        0x0C,
        "rw",
        "bit 0: enable, 1 after reset; while 0 no new frame begins. "
        "bit 1: write 1 to reset the accelerator, its counters and errors; reads 0",
    ),
    Register("STATUS", 0x10, "r", "bit 0: busy, frames are inside. bit 1: ERRORS is not 0"),
    Register(
        "ERRORS",
        0x14,
        "rc",
        "sticky, four bits for each input k: bit 4k: tlast early, the frame was filled with zeros. "
        "bit 4k+1: tlast missing on a last beat. bit 4k+2: an element outside its type",
    ),
    Register("FRAMES_IN", 0x18, "r", "frames begun since reset"),
    Register("FRAMES_OUT", 0x1C, "r", "frames completed since reset"),
    Register(
        "LATENCY",
        0x20,
        "r",
        "clock cycles of the last measured frame, from its first input beat to its last output "
        "beat; one frame is measured at a time",
    ),
    Register("INTERVAL", 0x24, "r", "clock cycles between the ends of the last two frames"),
    Register("TENSORS", 0x28, "r", "inputs in bits 7:0, outputs in bits 15:8"),
)
TENSOR_REGISTERS = (
    ("CHANNELS", "channels"),
    ("HEIGHT", "rows"),
    ("WIDTH", "columns"),
    (
        "FORMAT",
        "bits of an element in 7:0, its bytes in tdata in 11:8, bit 12: signed, "
        "elements of a beat in 31:16",
    ),
)


def register_map(inputs: int, outputs: int) -> tuple[Register, ...]:
    """All registers of an accelerator, by address: those of inputs before those of outputs."""
    found = list(REGISTERS)
    names = [f"INPUT{k}" for k in range(inputs)] + [f"OUTPUT{k}" for k in range(outputs)]
    for index, name in enumerate(names):
        for word, (suffix, text) in enumerate(TENSOR_REGISTERS):
            offset = TENSORS_AT + 16 * index + 4 * word
            found.append(Register(f"{name}_{suffix}", offset, "r", text))
    return tuple(found)


def address_bits(tensors: int) -> int:
    """Width of the addresses, for so many inputs and outputs together."""
    return max(8, (TENSORS_AT + 16 * tensors - 1).bit_length())


def tensor_words(tensor: TensorStream) -> tuple[int, int, int, int]:
    """The constants of `TENSOR_REGISTERS`."""
    form = tensor.element.bits | element_bytes(tensor) << 8 | int(tensor.element.signed) << 12
    return (tensor.channels, tensor.height, tensor.width, form | tensor.lanes << 16)


class Registers(wiring.Component):
    """The registers of `REGISTERS`, and the counters behind them.

    A read of an address without register gives 0, a write there does nothing; all responses are
    OKAY. Writes honour WSTRB's lowest bit for CONTROL and every bit for ERRORS.

    Ports:
        awaddr .. rready: AXI4-Lite slave, 32 bits of data; one write and one read at a time.
        begun, done: a frame begins, a frame is complete (one cycle each).
        early, late, range: errors of this cycle, one bit for each input (see `FrameInput`).
        enable: new frames may begin.
        soft_reset: reset the accelerator in the next cycle.

    Latency: a response two cycles after the request.
    """

    def __init__(
        self, inputs: Sequence[TensorStream], outputs: Sequence[TensorStream], build: int = 0
    ) -> None:
        if not 1 <= len(inputs) <= MOST_TENSORS or not 1 <= len(outputs) <= MOST_TENSORS:
            raise ValueError(f"1 to {MOST_TENSORS} inputs and outputs, not {len(inputs)} and more")
        self._tensors = (*inputs, *outputs)
        self._inputs = len(inputs)
        self._build = build
        self.address_bits = address_bits(len(self._tensors))
        super().__init__(
            {
                "awaddr": In(self.address_bits),
                "awvalid": In(1),
                "awready": Out(1),
                "wdata": In(32),
                "wstrb": In(4),
                "wvalid": In(1),
                "wready": Out(1),
                "bresp": Out(2),
                "bvalid": Out(1),
                "bready": In(1),
                "araddr": In(self.address_bits),
                "arvalid": In(1),
                "arready": Out(1),
                "rdata": Out(32),
                "rresp": Out(2),
                "rvalid": Out(1),
                "rready": In(1),
                "begun": In(1),
                "done": In(1),
                "early": In(len(inputs)),
                "late": In(len(inputs)),
                "range": In(len(inputs)),
                "enable": Out(1, init=1),
                "soft_reset": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        new_errors = Signal(4 * self._inputs)
        for k in range(self._inputs):
            kinds = (self.early[k], self.late[k], self.range[k])
            m.d.comb += new_errors[4 * k : 4 * k + 3].eq(Cat(kinds))
        errors = Signal.like(new_errors)
        m.d.sync += errors.eq(errors | new_errors)
        self._write(m, errors, new_errors)
        values = self._counters(m, errors)
        self._read(m, values)
        return m

    def _counters(self, m: Module, errors: Signal) -> dict[str, Signal]:
        """The registers that report, by name."""
        names = ("FRAMES_IN", "FRAMES_OUT", "LATENCY", "INTERVAL")
        values = {name: Signal(32, name=name.lower()) for name in names}
        frames_in, frames_out = values["FRAMES_IN"], values["FRAMES_OUT"]
        now = Signal(32)
        started = Signal(32)
        ended = Signal(32)
        awaited = Signal(32)
        measuring = Signal()
        m.d.sync += now.eq(now + 1)
        with m.If(self.begun):
            m.d.sync += frames_in.eq(frames_in + 1)
            with m.If(~measuring):
                m.d.sync += [measuring.eq(1), started.eq(now), awaited.eq(frames_in)]
        with m.If(self.done):
            m.d.sync += [
                frames_out.eq(frames_out + 1),
                ended.eq(now),
                values["INTERVAL"].eq(Mux(frames_out.any(), now - ended, 0)),
            ]
            with m.If(measuring & (awaited == frames_out)):
                m.d.sync += [measuring.eq(0), values["LATENCY"].eq(now - started)]
        # The accelerator is reset one cycle later, and may report something until then.
        late_reset = Signal()
        m.d.sync += late_reset.eq(self.soft_reset)
        with m.If(self.soft_reset | late_reset):
            m.d.sync += [value.eq(0) for value in values.values()]
            m.d.sync += [errors.eq(0), measuring.eq(0)]
        busy = Signal()
        m.d.sync += busy.eq(frames_in != frames_out)
        return values | {"ERRORS": errors, "STATUS": Cat(busy, errors.any())}

    def _write(self, m: Module, errors: Signal, new_errors: Signal) -> None:
        """The write channels: address and data are taken together, in one cycle of `taken`."""
        taken = Signal(name="write_taken")
        m.d.comb += [self.awready.eq(taken), self.wready.eq(taken)]
        m.d.sync += [
            taken.eq(self.awvalid & self.wvalid & ~taken & ~self.bvalid),
            self.soft_reset.eq(0),
        ]
        with m.If(self.bready):
            m.d.sync += self.bvalid.eq(0)
        with m.If(taken):
            m.d.sync += self.bvalid.eq(1)
            with m.Switch(self.awaddr[2:]):
                with m.Case(address("CONTROL") >> 2), m.If(self.wstrb[0]):
                    m.d.sync += [
                        self.enable.eq(self.wdata[0]),
                        self.soft_reset.eq(self.wdata[1]),
                    ]
                with m.Case(address("ERRORS") >> 2):
                    lanes = Cat(bit.replicate(8) for bit in self.wstrb)
                    m.d.sync += errors.eq((errors & ~(self.wdata & lanes)) | new_errors)

    def _read(self, m: Module, values: dict[str, Signal]) -> None:
        taken = Signal(name="read_taken")
        m.d.comb += self.arready.eq(taken)
        m.d.sync += taken.eq(self.arvalid & ~taken & ~self.rvalid)
        outputs = len(self._tensors) - self._inputs
        words = {
            "ID": IDENTITY,
            "VERSION": VERSION,
            "BUILD": self._build,
            "CONTROL": self.enable,
            "TENSORS": self._inputs | outputs << 8,
        } | values
        with m.If(self.rready):
            m.d.sync += self.rvalid.eq(0)
        with m.If(taken):
            m.d.sync += [self.rvalid.eq(1), self.rdata.eq(0)]
            with m.Switch(self.araddr[2:]):
                for register in REGISTERS:
                    with m.Case(register.offset >> 2):
                        m.d.sync += self.rdata.eq(words[register.name])
                for index, tensor in enumerate(self._tensors):
                    for word, value in enumerate(tensor_words(tensor)):
                        with m.Case((TENSORS_AT >> 2) + 4 * index + word):
                            m.d.sync += self.rdata.eq(value)


def address(name: str) -> int:
    """Byte address of a register of `REGISTERS`."""
    return next(register.offset for register in REGISTERS if register.name == name)
