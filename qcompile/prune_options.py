"""What may be said of pruning on the command line, and what contradicts what."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from qcompile.errors import UsageError

if TYPE_CHECKING:
    from qcompile.options import CompileOptions

AUTO = "auto"
"""`--prune` without a ratio: the largest that keeps --max-dice-drop."""
MOST_MULTIPLE = 1024
IMPORTANCE_FILE = "prune-importance.json"
"""A network that was pruned by scores from a file is written with them under this name."""
_SUFFIXES = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class PruneMethod(enum.Enum):
    """Where the importance of a filter comes from.

    AUTO: ERROR with calibration images, else L1. ERROR: what its readers lose without it, on those
    images. TAYLOR: activation times gradient, on those images or `--data`; torch computes it before
    the compilation, which then has method FILE. L1: mean of |w|. L2: root of the mean of w * w.
    BN: the scale of the batch norm behind it. FILE: `--prune-importance`.
    """

    AUTO = "auto"
    ERROR = "error"
    TAYLOR = "taylor"
    L1 = "l1"
    L2 = "l2"
    BN = "bn"
    FILE = "file"


class PruneScope(enum.Enum):
    """Whether the ratio is one of all filters of the network, or one of each layer."""

    GLOBAL = "global"
    LAYER = "layer"


class PruneConstants(enum.Enum):
    """What becomes of the constant that a removed filter's bias leaves.

    FOLD: it goes into the biases of the layers that read it. DROP: they read zero.
    """

    FOLD = "fold"
    DROP = "drop"


PRUNE_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {
        "prune_method": PruneMethod.AUTO,
        "prune_scope": PruneScope.GLOBAL,
        "prune_constants": PruneConstants.FOLD,
        "prune_refit": None,
        "prune_flops": None,
        "prune_bytes": None,
        "prune_multiple": 1,
        "prune_exclude": (),
        "prune_importance": None,
    }
)
"""The options beside `--prune`, with their defaults."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A budget: a number, or a share of what the network has before pruning."""

    value: Fraction
    relative: bool

    def of(self, whole: int) -> int:
        """The budget of a network that has `whole`."""
        return math.floor(self.value * whole) if self.relative else math.floor(self.value)


def parse_amount(text: str, flag: str) -> Amount:
    """'50%', '300M', '1.5G' or '120000' as an amount.

    Raises:
        UsageError: the text has another form, or is not positive.
    """
    number, relative, factor = text.strip(), False, 1
    if number.endswith("%"):
        number, relative = number[:-1], True
    elif number[-1:] in _SUFFIXES:
        number, factor = number[:-1], _SUFFIXES[number[-1]]
    try:
        value = Fraction(number) * factor / (100 if relative else 1) if len(number) < 40 else None
    except (ValueError, ZeroDivisionError):
        value = None
    if value is None or value <= 0 or (relative and value > 1):
        raise UsageError(
            f"{flag}: '{text}' is no budget; write a share of what there is, such as 50%, or a "
            f"number such as 300000, 300k or 1.5G"
        )
    return Amount(value, relative)


def parse_ratio(text: str) -> float | str:
    """'0.3' as a number, 'auto' as it is.

    Raises:
        UsageError: it is neither.
    """
    try:
        return AUTO if text == AUTO else float(text)
    except ValueError:
        raise UsageError(
            f"--prune: '{text}' is no ratio; use 0 up to (but not) 1, or auto"
        ) from None


def prunes(options: CompileOptions) -> bool:
    """Whether these options remove filters."""
    budget = options.prune_flops is not None or options.prune_bytes is not None
    return budget or options.prune == AUTO or options.prune != 0


def accept_prune_values(options: CompileOptions) -> None:
    """Resolves what depends on other options. From Python and TOML, numbers will do for budgets,
    and one pattern for a list of them."""
    for name in ("prune_flops", "prune_bytes"):
        value = getattr(options, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            object.__setattr__(options, name, f"{value:.17g}")
    if isinstance(options.prune_exclude, str):
        object.__setattr__(options, "prune_exclude", (options.prune_exclude,))
    if isinstance(options.prune_importance, str):
        object.__setattr__(options, "prune_importance", Path(options.prune_importance))
    images = options.calib is not None
    if options.prune_method is PruneMethod.AUTO:
        if options.prune_importance is not None:
            object.__setattr__(options, "prune_method", PruneMethod.FILE)
        elif prunes(options):
            method = PruneMethod.ERROR if images else PruneMethod.L1
            object.__setattr__(options, "prune_method", method)
    if options.prune_refit is None and prunes(options):
        object.__setattr__(options, "prune_refit", images)


def check_prune(options: CompileOptions) -> None:
    """
    Raises:
        UsageError: a value is out of range, or two options contradict each other.
    """
    ratio = options.prune
    if isinstance(ratio, str):
        if ratio != AUTO:
            raise UsageError(f"--prune: '{ratio}' is no ratio; use 0 up to (but not) 1, or auto")
    elif not 0 <= ratio < 1:
        raise UsageError(f"--prune: {ratio} is no ratio; use 0 up to (but not) 1, or auto")
    for flag, text in (
        ("--prune-flops", options.prune_flops),
        ("--prune-bytes", options.prune_bytes),
    ):
        if text is not None:
            parse_amount(text, flag)
    if not 1 <= options.prune_multiple <= MOST_MULTIPLE:
        raise UsageError(
            f"--prune-multiple: {options.prune_multiple} is out of range; use 1 to {MOST_MULTIPLE}"
        )
    if not all(options.prune_exclude):
        raise UsageError("--prune-exclude: an empty pattern excludes nothing; leave it out")
    from_file = options.prune_method is PruneMethod.FILE
    if from_file != (options.prune_importance is not None):
        raise UsageError(
            "--prune-method file and --prune-importance FILE go together; give both, or neither"
        )
    taylor = options.prune_method is PruneMethod.TAYLOR
    if taylor and prunes(options) and options.calib is None and not options.has_evaluation:
        raise UsageError("--prune-method taylor: needs --calib or --data, images to measure on")
    if options.calib is None and prunes(options):
        for flag, wanted in (
            ("--prune-method error", options.prune_method is PruneMethod.ERROR),
            ("--prune-refit", options.prune_refit),
        ):
            if wanted:
                raise UsageError(f"{flag}: needs --calib, the images to measure on")
    if ratio == AUTO:
        _check_auto(options)


def _check_auto(options: CompileOptions) -> None:
    if options.max_dice_drop is None or not options.has_evaluation:
        raise UsageError(
            "--prune without a ratio searches for the largest one that keeps --max-dice-drop on "
            "--data; give both, or a ratio"
        )
    if options.prune_flops is not None or options.prune_bytes is not None:
        raise UsageError(
            "--prune without a ratio and --prune-flops or --prune-bytes contradict each other: "
            "both decide how much goes; leave one out"
        )
