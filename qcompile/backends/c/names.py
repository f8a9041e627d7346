"""Names and texts that are safe inside C source, whatever the model calls its nodes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from qcompile.errors import UsageError
from qcompile.types import Element, FloatType

_RESERVED_WORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline
    int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while
    alignas alignof and asm bitand bitor bool catch class compl concept constexpr decltype delete
    explicit export false friend mutable namespace new noexcept not nullptr operator or private
    protected public requires template this throw true try typeid typename using virtual xor
    main errno stdin stdout stderr signal assert memcpy memset malloc free
"""
RESERVED = frozenset(_RESERVED_WORDS.split())
"""Keywords of C and C++, and names of the standard library that files or symbols would shadow."""
LONGEST_ENTRY = 48


def check_entry(entry: str) -> str:
    """`entry` if it can name C functions, macros and files.

    Raises:
        UsageError: it is no identifier, too long, or reserved.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", entry) or len(entry) > LONGEST_ENTRY:
        raise UsageError(
            f"--entry '{entry[:60]}' is no C identifier; use a letter, then letters, digits and "
            f"underscores, at most {LONGEST_ENTRY}"
        )
    if entry in RESERVED:
        raise UsageError(f"--entry '{entry}' is a reserved word of C or C++; choose another name")
    return entry


def identifier(name: str, longest: int = 28) -> str:
    """Letters, digits and single underscores of `name`, lower case; may be empty."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:longest].strip("_")


def unique(names: Iterable[str]) -> list[str]:
    """`names` with numbers added to repeated ones."""
    seen: set[str] = set()
    result = []
    for name in names:
        candidate, count = name, 1
        while candidate in seen:
            count += 1
            candidate = f"{name}_{count}"
        seen.add(candidate)
        result.append(candidate)
    return result


def comment_text(text: str, longest: int = 160) -> str:
    """`text` as it may stand in a comment: printable ASCII that can neither end the comment nor
    start another, splice lines or form a trigraph."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in text)
    if len(shown) > longest:
        shown = shown[: longest - 3] + "..."
    for bad, good in (("*/", "* /"), ("/*", "/ *"), ("??", "? ?"), ("//", "/ /"), ("\\", "/")):
        while bad in shown:
            shown = shown.replace(bad, good)
    return shown


def comment_lines(text: str) -> list[str]:
    """`comment_text` as lines of at most 98 columns; all but the first are indented."""
    shown = comment_text(text, 4000)
    return textwrap.wrap(shown, 98, subsequent_indent="    ", break_on_hyphens=False)


def string_text(text: str, longest: int = 160) -> str:
    """`text` as the inside of a C string literal."""
    return comment_text(text, longest).replace('"', "'")


def c_type(element: Element) -> str:
    """C type of one stored element."""
    if isinstance(element, FloatType):
        return "float"
    return f"{element.storage.name}_t"


def short(ctype: str) -> str:
    """'int16_t' -> 'i16', 'float' -> 'f32': suffixes of kernel names."""
    if ctype in ("float", "double"):
        return {"float": "f32", "double": "f64"}[ctype]
    return ctype.replace("uint", "u").replace("int", "i").removesuffix("_t")


def type_size(ctype: str) -> int:
    """Bytes of one element."""
    return {"float": 4, "double": 8}.get(ctype) or int(ctype.strip("uint_")) // 8


def integer_literal(value: int, ctype: str) -> str:
    """`value` as a constant expression of `ctype` that no compiler warns about."""
    if ctype == "float":
        return float_literal(float(value))
    if ctype == "int64_t" or not -(1 << 31) < value < (1 << 31):
        if value == -(1 << 63):
            return "INT64_MIN"
        return f"INT64_C({value})" if not -(1 << 31) < value < (1 << 31) else str(value)
    return str(value)


def float_literal(value: float) -> str:
    """An exact float constant; infinities saturate to the largest float."""
    if value in (float("inf"), float("-inf")):
        return "3.40282347e+38f" if value > 0 else "-3.40282347e+38f"
    text = f"{value:.9g}"
    return f"{text}f" if any(c in text for c in ".en") else f"{text}.0f"


def double_literal(value: float) -> str:
    """A double constant that reads back exactly."""
    text = repr(float(value))
    return text if any(c in text for c in ".en") else f"{text}.0"
