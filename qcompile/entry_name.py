"""Which names `--entry` may give to the files, functions and modules that are written."""

from __future__ import annotations

import re

from qcompile.errors import UsageError

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
# What C99 reserves, so that `--entry` cannot produce a file that no compiler accepts.
_RESERVED = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if
    inline int long register restrict return short signed sizeof static struct switch
    typedef union unsigned void volatile while main bool true false class new delete this
    template namespace operator private protected public virtual try catch throw using
    """.split()  # noqa: SIM905  a column of words reads better than a list
)
# <entry>.h must not stand before a standard header, nor <entry> be one of CMake's own targets.
_TAKEN = frozenset(
    """
    assert complex ctype errno fenv inttypes iso646 limits locale math setjmp signal stdalign
    stdarg stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time
    uchar wchar wctype features alloca memory strings unistd test all clean help install package
    package_source edit_cache rebuild_cache preinstall list_install_components
    """.split()  # noqa: SIM905
)
# What (System)Verilog and VHDL reserve beyond that, which a name of a module must not be.
_RESERVED_HDL = frozenset(
    """
    always and assign automatic begin bind bit buf byte casex casez cell clocking cmos config
    constraint cover cross deassign defparam design disable edge endcase endfunction endmodule
    endtask event expect export extends final force foreach forever fork function generate genvar
    global import include initial inout input inside instance integer interface join liblist
    library local localparam logic macromodule medium modport module nand negedge new nmos nor not
    null or output package parameter pmos posedge primitive priority program property pull0 pull1
    pulldown pullup pure rand ref reg release repeat scalared sequence small solve specify
    string strong0 strong1 super supply0 supply1 table tagged task time tran tri tri0 tri1 triand
    trior trireg type unique use var vectored virtual wait wand weak0 weak1 wire within wor xnor xor
    abs access after alias all architecture array assert attribute block body buffer bus component
    configuration constant disconnect downto else elsif end entity exit file generic group guarded
    impure in is label linkage loop map mod next of on open others out port postponed procedure
    process range record register reject rem report return rol ror select severity signal shared
    sla sll sra srl subtype then to transport unaffected units until variable when with
    """.split()  # noqa: SIM905
)


def check_entry(name: str, hdl: bool = False) -> None:
    """
    Args:
        hdl: it names a module in Verilog or VHDL, too.

    Raises:
        UsageError: `name` cannot be a C name (and a name of a module).
    """
    if not _IDENTIFIER.fullmatch(name) or name in _RESERVED:
        raise UsageError(f"--entry: '{name[:80]}' is no usable C name; use letters, digits and _")
    if name.lower() in _TAKEN:
        raise UsageError(
            f"--entry: '{name}' is the name of a standard header or build target; use another one"
        )
    # VHDL does not tell capitals from small letters, and knows no names that end in "_".
    if hdl and (name.lower() in _RESERVED_HDL or name.endswith("_") or "__" in name):
        raise UsageError(
            f"--entry: '{name}' is no usable name of a Verilog or VHDL module; use another one"
        )
