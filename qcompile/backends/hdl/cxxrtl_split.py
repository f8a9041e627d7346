"""Cuts the C++ of a simulated design into functions that a compiler can digest.

CXXRTL writes all logic of a flattened design as one function. The time that GCC takes for it grows
faster than its length: 8 s of processor time for one convolution, 115 s for four of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

SPLIT_VERSION = "1"
"""To be changed with what `split` writes: kept libraries are found by it."""
PIECE_LINES = 120
NAME = re.compile(r"\b[pi]_\w+")
LOCAL = re.compile(r"^\tvalue<\d+> (?P<name>\w+);$")
COMMIT = re.compile(r"^\t\tif \((?P<name>\w+)\.commit\(observer\)\) changed = true;$")
EVAL = "bool p_top::eval(performer *performer) {\n"
HEAD = re.compile(r"\tbool converged = true;\n\tbool posedge_p_clk = this->posedge_p_clk\(\);\n")
MEMBERS = "\tvoid reset() override;\n"
COMMIT_BEGIN = "\tbool commit(ObserverT &observer) {\n\t\tbool changed = false;\n"
COMMIT_END = "\t\treturn changed;\n\t}\n"


def split(design: str) -> tuple[str, bool]:
    """Cuts `eval` and `commit` into pieces behind two functions that make one clock cycle.

    Returns:
        The C++, and whether it was cut: not if logic has to be evaluated until it settles, if there
        is no clock, or if the text is not as expected. `evaluate()` then computes the outputs as
        they are before a rising edge, and what the registers become; `update()` is the edge.
    """
    before, found, rest = design.partition(EVAL)
    body, end, after = rest.partition("\n}\n")
    head = HEAD.match(body)
    if not (found and end and head and before.count(MEMBERS) == 1):
        return design, False
    if "converged = false" in body or before.count(COMMIT_BEGIN) != 1:
        return design, False
    lines = [line for line in body[head.end() :].split("\n") if line != "\treturn converged;"]
    declared = {match["name"]: line for line in lines if (match := LOCAL.match(line))}
    pieces = list(_pieces([line for line in lines if not LOCAL.match(line)]))
    used = [set(NAME.findall("\n".join(piece))) & declared.keys() for piece in pieces]
    pieces_of = Counter(name for names in used for name in names)
    # What crosses from piece to piece becomes a member.
    members = [line for name, line in declared.items() if pieces_of[name] > 1]
    functions = []
    for number, (piece, names) in enumerate(zip(pieces, used, strict=True)):
        own = [declared[name] for name in declared if name in names and pieces_of[name] == 1]
        functions.append((f"evaluate_{number}", [*own, *piece]))
    updates = _updates(before)
    if updates is None:
        return design, False
    for number, begin in enumerate(range(0, len(updates), PIECE_LINES)):
        functions.append((f"update_{number}", updates[begin : begin + PIECE_LINES]))
    declarations = [f"\t__attribute__((noinline)) void {name}();" for name, _ in functions]
    for kind in ("evaluate", "update"):
        calls = "".join(f" {name}();" for name, _ in functions if name.startswith(f"{kind}_"))
        declarations.append(f"\tvoid {kind}() {{{calls} }}")
    before = before.replace(MEMBERS, MEMBERS + "\n".join([*members, *declarations]) + "\n")
    start = before.index(COMMIT_BEGIN) + len(COMMIT_BEGIN)
    stop = before.index(COMMIT_END, start)
    before = before[:start] + before[stop:]
    defined = [
        f"void p_top::{name}() {{\n\tconstexpr bool posedge_p_clk = true;\n"
        + "\n".join(lines)
        + "\n}\n"
        for name, lines in functions
    ]
    return f"{before}{''.join(defined)}{EVAL}\treturn true;\n}}\n{after}", True


def _pieces(lines: Sequence[str]) -> Iterator[list[str]]:
    """The statements in groups; a group ends before the comment with which a new cell begins."""
    piece: list[str] = []
    code = True
    for line in lines:
        comment = line.startswith("\t// ")
        if comment and code and len(piece) >= PIECE_LINES:
            yield piece
            piece = []
        code = not comment
        piece.append(line)
    if piece:
        yield piece


def _updates(before: str) -> list[str] | None:
    """What `commit` does, one statement for each register and memory; None if it is unfamiliar."""
    start = before.index(COMMIT_BEGIN) + len(COMMIT_BEGIN)
    statements = []
    for line in before[start : before.index(COMMIT_END, start)].splitlines():
        match = COMMIT.match(line)
        if match is None:
            if "prev_p_clk = p_clk" not in line:
                return None
        elif match["name"].startswith("memory_"):
            statements.append(f"\t{{ observer nobody; {match['name']}.commit(nobody); }}")
        else:
            statements.append(f"\t{match['name']}.curr = {match['name']}.next;")
    return statements
