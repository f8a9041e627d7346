"""What may be said of an accelerator on the command line, and what contradicts what."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from qcompile.devices import find_device
from qcompile.errors import UsageError

if TYPE_CHECKING:
    from qcompile.options import CompileOptions

LOWEST_CLOCK, HIGHEST_CLOCK = 1.0, 1000.0
"""MHz."""
MOST_MULTIPLIERS = 1 << 20
FOLD_FILE = "fold.toml"
"""Every accelerator is written with its foldings under this name."""


class FifoPolicy(enum.Enum):
    """How deep the FIFOs between operators are.

    RATE: as deep as it takes that no FIFO slows the slowest operator down. MINIMUM: as shallow as
    can be without the accelerator coming to a halt.
    """

    RATE = "rate"
    MINIMUM = "minimum"


HDL_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {
        "device": None,
        "clock": 100.0,
        "target_fps": None,
        "multipliers": None,
        "fold": None,
        "fifos": FifoPolicy.RATE,
        "synth": False,
    }
)
"""The options that mean something with `--target hdl` only, with their defaults."""


def check_hdl(options: CompileOptions) -> None:
    """
    Raises:
        UsageError: a value is out of range, or two options contradict each other. Whether a rate, a
            number of multipliers and the foldings of a file go together is only known when
            foldings are chosen.
    """
    if options.target.value != "hdl":
        for name, default in HDL_DEFAULTS.items():
            if getattr(options, name) != default:
                raise UsageError(
                    f"--{name.replace('_', '-')}: is for --target hdl only, not for --target "
                    f"{options.target.value}; leave it out or change the target"
                )
        return
    if not LOWEST_CLOCK <= options.clock <= HIGHEST_CLOCK:
        raise UsageError(
            f"--clock: {options.clock:g} MHz is out of range; "
            f"use {LOWEST_CLOCK:g} to {HIGHEST_CLOCK:g}"
        )
    fps, multipliers = options.target_fps, options.multipliers
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"--target-fps: {fps} is no rate; use a number of frames above 0")
    if multipliers is not None and not 0 <= multipliers <= MOST_MULTIPLIERS:
        raise UsageError(
            f"--multipliers: {multipliers} is out of range; use 0 to {MOST_MULTIPLIERS}"
        )
    if options.device is not None:
        device = find_device(options.device)
        object.__setattr__(options, "device", device.name)
        if multipliers is not None and multipliers > device.multipliers:
            raise UsageError(
                f"--multipliers: {device.name} has {device.multipliers}, not {multipliers}; "
                f"use fewer or a larger --device"
            )
    elif options.synth:
        raise UsageError("--synth: needs --device to know what to synthesise for")
