"""Everything a user can choose: one field a flag, and overrides for single layers.

This module imports nothing heavy, so that `qcompile --help` answers at once. The TOML form of these
options is in `config.py`.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from qcompile.budget_options import accept_budgets, check_budgets
from qcompile.data_options import (
    DATA_CHOICES,
    DATA_PATHS,
    DATA_TEXTS,
    DataOptions,
    check_data,
)
from qcompile.entry_name import check_entry
from qcompile.errors import UsageError
from qcompile.format_options import (
    TENSOR_WIDTHS,
    any_verbatim,
    check_quantizer,
    check_width,
    implied_widths,
    override_format,
)
from qcompile.hdl_options import FifoPolicy, check_hdl
from qcompile.mcu_options import check_mcu
from qcompile.onnx_options import OnnxInput, OnnxWeights, check_onnx
from qcompile.prune_options import (
    PruneConstants,
    PruneMethod,
    PruneScope,
    accept_prune_values,
    check_prune,
)

if TYPE_CHECKING:
    from qcompile.plan import Format, Quantizer

MAX_DIMENSION = 1 << 24
PATHS = ("output", "config", "dump_ir", "report", "fold", "search_cache", "energy_table")
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-100, 2.0**100
"""Scales outside are no normal float32 numbers any more once they are multiplied."""


class Target(enum.Enum):
    """What is written: a C program, an accelerator, the integer network for the simulator, or an
    ONNX model for other tools."""

    C = "c"
    HDL = "hdl"
    SIM = "sim"
    QDQ = "qdq"
    QCDQ = "qcdq"
    QONNX = "qonnx"


class InputChoice(enum.Enum):
    """What the compiled network takes: raw pixels or the original network's float input.

    AUTO means pixels where the data given are uint8 (or where there are none), else floats.
    """

    AUTO = "auto"
    UINT8 = "uint8"
    FLOAT32 = "float32"


class OutputKind(enum.Enum):
    """What the compiled network returns. AUTO keeps what the model returns."""

    AUTO = "auto"
    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    CLASSES = "classes"


class RangeMethod(enum.Enum):
    """How an activation's scale follows from the values seen during calibration."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    MSE = "mse"
    BEST = "best"


class TernaryTanhForm(enum.Enum):
    """What a ternary tanh of the model becomes: the three codes that it was trained towards, or a
    table of the smooth function."""

    HARD = "hard"
    SOFT = "soft"


class Taps(enum.Enum):
    """What inner tensors are written for people to look at: the maps of attention."""

    ATTENTION = "attention"


class Effort(enum.Enum):
    """How much work goes into keeping the result.

    NEAREST rounds every weight to its nearest code and needs no data. The others equalise channels
    and make up for rounding errors layer by layer: FAST with few samples and without solving,
    NORMAL in full, BEST in several ways of which it keeps the one closest to the float network.
    AUTO is NORMAL where there are calibration images, else NEAREST.
    """

    AUTO = "auto"
    NEAREST = "nearest"
    FAST = "fast"
    NORMAL = "normal"
    BEST = "best"


_CHOICES: Mapping[str, type[enum.Enum]] = {
    "input_kind": InputChoice,
    "output_kind": OutputKind,
    "range_method": RangeMethod,
    "ternary_tanh": TernaryTanhForm,
    "effort": Effort,
    "taps": Taps,
    "fifos": FifoPolicy,
    **DATA_CHOICES,
    "onnx_input": OnnxInput,
    "onnx_weights": OnnxWeights,
    "prune_method": PruneMethod,
    "prune_scope": PruneScope,
    "prune_constants": PruneConstants,
}


@dataclass(frozen=True, slots=True)
class LayerOverride:
    """What a `[[layer]]` or `[[input]]` table says; None leaves the general rule in force.

    `pattern` is the exact name of a node (or graph input), or a shell pattern such as `*/up*`.
    `quantizer` holds for weights and output, `activation_quantizer` for the output alone. A
    `scale` (of the output, real units a code) makes calibration of that tensor unnecessary.
    """

    pattern: str
    wbits: str | None = None
    abits: str | None = None
    quantizer: str | None = None
    activation_quantizer: str | None = None
    scale: float | None = None
    signed: bool | None = None

    def __post_init__(self) -> None:
        if not self.pattern:
            raise UsageError("a layer override needs a name or pattern")
        if self.wbits is not None:
            check_width(self.wbits, f"wbits of layer '{self.pattern}'")
        if self.abits is not None:
            check_width(self.abits, f"abits of layer '{self.pattern}'", widths=TENSOR_WIDTHS)
        for what, name in (
            ("quantizer", self.quantizer),
            ("activation_quantizer", self.activation_quantizer),
        ):
            if name is not None:
                place = f"{what} of layer '{self.pattern}'"
                check_quantizer(name, place, activations=what == "activation_quantizer")
        if self.scale is not None and not SMALLEST_SCALE <= self.scale <= LARGEST_SCALE:
            raise UsageError(
                f"scale of layer '{self.pattern}': {self.scale} is no scale; use a number above 0, "
                f"from {SMALLEST_SCALE:.0e} to {LARGEST_SCALE:.0e}"
            )

    def matches(self, name: str) -> bool:
        return name == self.pattern or fnmatchcase(name, self.pattern)

    def merged_with(self, later: LayerOverride) -> LayerOverride:
        """This override, replaced field by field by what `later` says."""
        said = {
            item.name: getattr(later, item.name)
            for item in dataclasses.fields(later)
            if getattr(later, item.name) is not None
        }
        return dataclasses.replace(self, **said)

    def weight_format(self, default: Format, quantizer: str) -> Format:
        """Format of the layer's weights.

        Args:
            default: the format of the general rule.
            quantizer: the quantizer in force where nothing names one (`CompileOptions.quantizer`).
        """
        what = f"wbits of layer '{self.pattern}'"
        return override_format(what, self.wbits, self.quantizer, default, quantizer, weights=True)

    def output_format(self, default: Format, quantizer: str) -> Format:
        """Format of the layer's output; arguments as for `weight_format`."""
        what = f"abits of layer '{self.pattern}'"
        named = self.activation_quantizer or self.quantizer
        return override_format(what, self.abits, named, default, quantizer, weights=False)


@dataclass(frozen=True, slots=True)
class CompileOptions(DataOptions):
    """The resolved options of one compilation. Scalars and per-channel lists are tuples.

    An empty `wbits` or `abits` becomes what `quantizer` implies (`implied_widths`). `budgeted`
    says whether widths are searched for (None: follows from the others); `wbits` and `abits` are
    then the widest. Those from `device` to `synth` are for the target HDL: `clock` in MHz,
    `target_fps` frames a second to reach, `multipliers` the most hardware multipliers to use,
    `fold` a file with the folding of each operator.
    """

    target: Target = Target.C
    wbits: str = ""
    abits: str = ""
    quantizer: str = "scaled"
    first_last_bits: str = "8"
    output: Path | None = None
    calib_images: int = 32
    effort: Effort = Effort.AUTO
    range_method: RangeMethod = RangeMethod.BEST
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    input_kind: InputChoice = InputChoice.AUTO
    input_scale: tuple[float, ...] = (1 / 255,)
    input_mean: tuple[float, ...] = (0.0,)
    input_std: tuple[float, ...] = (1.0,)
    output_kind: OutputKind = OutputKind.AUTO
    ternary_tanh: TernaryTanhForm = TernaryTanhForm.HARD
    min_dice: float | None = None
    max_dice_drop: float | None = None
    mean_wbits: float | None = None
    max_bytes: str | None = None
    max_bops: str | None = None
    max_arena: str | None = None
    max_luts: str | None = None
    max_ram_bits: str | None = None
    scheduler: str | None = None
    search_cache: Path | None = None
    budgeted: bool | None = None
    prune: float | str = 0.0
    prune_method: PruneMethod = PruneMethod.AUTO
    prune_scope: PruneScope = PruneScope.GLOBAL
    prune_constants: PruneConstants = PruneConstants.FOLD
    prune_refit: bool | None = None
    prune_flops: str | None = None
    prune_bytes: str | None = None
    prune_multiple: int = 1
    prune_exclude: tuple[str, ...] = ()
    prune_importance: Path | None = None
    config: Path | None = None
    verify: bool = False
    taps: Taps | None = None
    energy_table: Path | None = None
    measure: bool = False
    dump_ir: Path | None = None
    report: Path | None = None
    entry: str = "model"
    separate_weights: bool = False
    mcu: bool = False
    device: str | None = None
    clock: float = 100.0
    target_fps: float | None = None
    multipliers: int | None = None
    fold: Path | None = None
    fifos: FifoPolicy = FifoPolicy.RATE
    synth: bool = False
    onnx_input: OnnxInput = OnnxInput.FLOAT32
    onnx_weights: OnnxWeights = OnnxWeights.INT8
    seed: int = 0
    workers: int = 0
    verbosity: int = 0
    layers: tuple[LayerOverride, ...] = ()
    inputs: tuple[LayerOverride, ...] = ()

    def __post_init__(self) -> None:
        self._accept_plain_values()
        check_quantizer(self.quantizer, "--quantizer")
        accept_budgets(self)
        for name, implied in zip(("wbits", "abits"), implied_widths(self.quantizer), strict=True):
            if not getattr(self, name):
                object.__setattr__(self, name, implied)
        check_width(self.wbits, "--wbits")
        check_width(self.abits, "--abits")
        check_width(self.first_last_bits, "--first-last-bits", may_be_q=False)
        _check_range("--calib-images", self.calib_images, 1, 1_000_000)
        _check_range("--min-dice", self.min_dice, 0.0, 1.0)
        _check_range("--max-dice-drop", self.max_dice_drop, 0.0, 1.0)
        _check_range("--seed", self.seed, 0, 2**32 - 1)
        _check_range("--workers", self.workers, 0, 256)
        for flag, values in (
            ("--input-scale", self.input_scale),
            ("--input-mean", self.input_mean),
            ("--input-std", self.input_std),
        ):
            if not values or not all(math.isfinite(value) for value in values):
                raise UsageError(f"{flag}: needs one finite number, or one for each channel")
        for flag, values in (("--input-scale", self.input_scale), ("--input-std", self.input_std)):
            if any(value == 0 for value in values):
                raise UsageError(f"{flag}: 0 would make every pixel alike; use another number")
        for name, shape in self.input_shapes.items():
            if not shape or not all(1 <= size <= MAX_DIMENSION for size in shape):
                raise UsageError(
                    f"--input-shape {name}: {list(shape)} is no shape; "
                    f"use sizes from 1 to {MAX_DIMENSION}, batch first"
                )
        if self.calib is None and self.effort not in (Effort.AUTO, Effort.NEAREST):
            raise UsageError(
                f"--effort {self.effort.value} needs images like those the network was trained "
                f"on; give --calib, or --effort nearest"
            )
        check_entry(self.entry, hdl=self.target is Target.HDL)
        check_hdl(self)
        check_onnx(self)
        check_mcu(self)
        if self.measure and (self.target is not Target.C or self.mcu):
            raise UsageError(
                "--measure: times the C program on this machine, which --target "
                f"{self.target.value}{' --mcu' if self.mcu else ''} is not for; leave it out"
            )
        check_budgets(self)
        check_prune(self)
        check_data(self)
        if not self.has_evaluation and (self.min_dice, self.max_dice_drop) != (None, None):
            raise UsageError("--min-dice and --max-dice-drop need --data to measure Dice on")

    def _accept_plain_values(self) -> None:
        """From Python, `wbits=4`, `target="sim"`, `calib=Path(...)` and `output="out"` will do.

        Raises:
            UsageError: a choice is unknown.
        """
        for name in ("wbits", "abits", "first_last_bits", *DATA_PATHS, *DATA_TEXTS):
            value = getattr(self, name)
            if isinstance(value, int | Path) and not isinstance(value, bool):
                object.__setattr__(self, name, str(value))
        for name in PATHS:
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        for name in ("input_scale", "input_mean", "input_std"):
            value = getattr(self, name)
            if isinstance(value, int | float):
                object.__setattr__(self, name, (float(value),))
        if isinstance(self.target, str):
            object.__setattr__(self, "target", parse_target(self.target))
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if isinstance(value, str):
                allowed = [item.value for item in kind]
                if value not in allowed:
                    raise UsageError(f"{name}: '{value}' is unknown; use {', '.join(allowed)}")
                object.__setattr__(self, name, kind(value))
        accept_prune_values(self)

    def layer_override(self, name: str) -> LayerOverride:
        """What the overrides say of one operator: patterns in file order, each replacing what the
        one before said, then entries with exactly this name."""
        return _merged(self.layers, name)

    def input_override(self, name: str) -> LayerOverride:
        """What the overrides say of one graph input."""
        return _merged(self.inputs, name)

    @property
    def quantizer_kind(self) -> Quantizer:
        """`quantizer` as the enumeration of the plan."""
        from qcompile.plan import Quantizer

        return Quantizer(self.quantizer)

    @property
    def takes_weights_as_trained(self) -> bool:
        """The network, or one of its layers, has a quantizer whose rule is meant to the letter."""
        return any_verbatim((self.quantizer, *(layer.quantizer for layer in self.layers)))


def _merged(overrides: tuple[LayerOverride, ...], name: str) -> LayerOverride:
    found = LayerOverride(name)
    exact = [item for item in overrides if item.pattern == name]
    for item in [item for item in overrides if item.pattern != name and item.matches(name)] + exact:
        found = found.merged_with(item)
    return dataclasses.replace(found, pattern=name)


def parse_target(text: str) -> Target:
    """
    Raises:
        UsageError: the target is unknown.
    """
    try:
        return Target(text)
    except ValueError:
        allowed = ", ".join(target.value for target in Target)
        raise UsageError(f"--target: '{text}' is no target; use one of {allowed}") from None


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """'NAME=1,1,256,256' as (name, shape); names may hold '=' themselves.

    Raises:
        UsageError: the text has another form.
    """
    name, separator, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not separator or not name or not shape:
        raise UsageError(f"--input-shape: '{text}' is not of the form NAME=1,1,256,256")
    return name, shape


def parse_numbers(text: str, flag: str) -> tuple[float, ...]:
    """'0.5' or '0.485,0.456,0.406' (fractions such as 1/255 too) as floats.

    Raises:
        UsageError: something there is no number.
    """
    values = []
    for part in text.split(","):
        numerator, _, denominator = part.partition("/")
        try:
            values.append(float(numerator) / (float(denominator) if denominator else 1.0))
        except (ValueError, ZeroDivisionError):
            raise UsageError(
                f"{flag}: '{text}' is no number or list of numbers; write e.g. 1/255 or 0.5,0.4,0.3"
            ) from None
    return tuple(values)


def _check_range(flag: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise UsageError(f"{flag}: {value} is out of range; use {low} to {high}")
