"""What `--mcu` goes together with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qcompile.errors import UsageError

if TYPE_CHECKING:
    from qcompile.options import CompileOptions


def check_mcu(options: CompileOptions) -> None:
    """
    Raises:
        UsageError: the target is no C program.
    """
    if options.mcu and options.target.value != "c":
        raise UsageError(
            f"--mcu: is for --target c only, not for --target {options.target.value}; leave it out "
            "or change the target"
        )
