"""Flash and RAM of a program for microcontrollers as lines of text."""

from __future__ import annotations

from qcompile.backends.c.footprint import Footprint


def footprint_lines(footprint: Footprint) -> list[tuple[str, str]]:
    """(what, how much) for people."""
    lines = [
        ("flash", f"{footprint.flash_bytes:,} bytes ({footprint.flash_text})"),
        ("RAM", f"{footprint.ram_bytes:,} bytes ({footprint.ram_text})"),
        ("inputs, outputs", f"{footprint.input_bytes:,} and {footprint.output_bytes:,} bytes"),
    ]
    lines += [
        (
            "largest in the arena" if index == 0 else "",
            f"{size:,} bytes: {value[-60:]}, {held} of {rows} rows",
        )
        for index, (value, held, rows, size) in enumerate(footprint.largest)
    ]
    if footprint.multiplications_again:
        lines.append(("computed again", f"{footprint.multiplications_again:,} multiplications"))
    if footprint.compiler is not None:
        lines.append(("code and stack by", footprint.compiler))
    return lines
