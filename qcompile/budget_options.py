"""What may be said of budgets on the command line, and what contradicts what.

A budget stands in place of bits: the compiler assigns the widths of layers. `--wbits` and `--abits`
then are the widest that a layer may have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from qcompile.errors import UsageError
from qcompile.prune_options import AUTO, parse_amount

if TYPE_CHECKING:
    from qcompile.options import CompileOptions

LEAST_MEAN_BITS, MOST_MEAN_BITS = 2.0, 8.0
SEARCHED_QUANTIZERS = ("scaled", "fixed")
SIZE_BUDGETS = ("max_bytes", "max_bops", "max_arena", "max_luts", "max_ram_bits")
"""Fields that say how large the result may be, each a text that `parse_amount` reads."""
HDL_BUDGETS = ("max_luts", "max_ram_bits")
SEARCH_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {**dict.fromkeys(SIZE_BUDGETS), "scheduler": None, "search_cache": None}
)
"""The options of a search, with their defaults."""


def flag_of(name: str) -> str:
    """'max_bytes' as '--max-bytes'."""
    return f"--{name.replace('_', '-')}"


def accept_budgets(options: CompileOptions) -> None:
    """Decides whether widths are searched for, while it is still known which ones were given.

    From Python and TOML, numbers will do for budgets.
    """
    sizes = [name for name in SIZE_BUDGETS if getattr(options, name) is not None]
    for name in sizes:
        value = getattr(options, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            object.__setattr__(options, name, f"{value:.17g}")
    if options.budgeted is not None:
        return
    said = options.wbits or options.abits or options.quantizer not in SEARCHED_QUANTIZERS
    said = said or options.mean_wbits is not None or options.prune == AUTO
    gate = options.max_dice_drop is None or said
    object.__setattr__(options, "budgeted", bool(sizes) or not gate)


def check_budgets(options: CompileOptions) -> None:
    """
    Raises:
        UsageError: a value is out of range, or two options contradict each other.
    """
    _check_mean(options)
    target = options.target.value
    for name in SIZE_BUDGETS:
        text = getattr(options, name)
        if text is None:
            continue
        parse_amount(text, flag_of(name))
        if name in HDL_BUDGETS and target != "hdl":
            raise UsageError(
                f"{flag_of(name)}: is for --target hdl, not for {target}; leave it out"
            )
        if name == "max_arena" and target == "hdl":
            raise UsageError(
                "--max-arena: an accelerator has no arena; use --max-ram-bits or another --target"
            )
    if options.max_luts is not None and options.device is None:
        raise UsageError("--max-luts: LUTs differ from FPGA to FPGA; add --device")
    if not options.budgeted:
        for name in ("scheduler", "search_cache"):
            if getattr(options, name) is not None:
                raise UsageError(
                    f"{flag_of(name)}: there is nothing to search for; add a budget such as "
                    f"--max-bytes, or --max-dice-drop without --wbits and --abits"
                )
        return
    if options.prune == AUTO:
        raise UsageError(
            "--prune without a ratio looks for one with the widths as they are; give a ratio, or "
            "leave the budgets of widths out"
        )
    if options.mean_wbits is not None:
        raise UsageError("--mean-wbits is a budget of its own; leave it or the others out")
    if options.scheduler is not None and "://" not in options.scheduler:
        raise UsageError(
            f"--scheduler: '{options.scheduler}' is no address; write e.g. tcp://192.168.0.5:8786"
        )
    _check_searched(options, "a budget")


def _check_mean(options: CompileOptions) -> None:
    mean = options.mean_wbits
    if mean is None:
        return
    if not math.isfinite(mean) or not LEAST_MEAN_BITS <= mean <= MOST_MEAN_BITS:
        raise UsageError(
            f"--mean-wbits: {mean:g} is out of range; use {LEAST_MEAN_BITS:g} to {MOST_MEAN_BITS:g}"
        )
    _check_searched(options, "--mean-wbits")
    if mean > int(options.wbits):
        raise UsageError(
            f"--mean-wbits: {mean:g} is more than the widest that a layer may have, --wbits "
            f"{options.wbits}; leave --wbits out"
        )


def _check_searched(options: CompileOptions, what: str) -> None:
    """What holds wherever the compiler chooses widths."""
    if options.quantizer not in SEARCHED_QUANTIZERS:
        raise UsageError(
            f"{what}: --quantizer {options.quantizer} has no widths to choose from; "
            f"use scaled or fixed"
        )
    if not options.wbits.isdigit() or int(options.wbits) > MOST_MEAN_BITS:
        raise UsageError(
            f"{what}: with it, --wbits is the widest that a layer may have, at most 8, not "
            f"{options.wbits}; leave --wbits out"
        )
