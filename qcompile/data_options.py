"""What may be said about data and about how Dice is counted, and what contradicts what."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from qcompile.errors import UsageError

MOST_HALO = 1 << 16
AUTO_HALO = "auto"
PLANES = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
"""Name of a plane -> where slices, rows and columns run to (R/L, A/P, I/S: of the patient)."""
_AXES = ("RL", "AP", "IS")


class EmptyDice(enum.Enum):
    """What an image (or case) without the class counts in means.

    ONE and ZERO: that number where neither mask nor prediction has the class (where only the
    prediction has it, Dice is 0 anyway). SKIP: images whose mask lacks the class do not count, so
    the float and the compiled network are judged on the same images.
    """

    ONE = "one"
    ZERO = "zero"
    SKIP = "skip"


class DiceOver(enum.Enum):
    """What the totals and the gates are means of: images (slices), cases (volumes), or the Dice of
    all pixels together."""

    IMAGE = "image"
    CASE = "case"
    POOLED = "pooled"


class MaskValues(enum.Enum):
    """What the numbers in masks are.

    INDEX: classes. BINARY: everything but 0 is class 1. INSTANCES: numbers of objects, all of class
    1. AUTO: classes, and masks of only 0 and 255 are 0 and 1.
    """

    AUTO = "auto"
    INDEX = "index"
    BINARY = "binary"
    INSTANCES = "instances"


class WindowKind(enum.Enum):
    """LEVELS and PERCENTILES map a range of intensities, or of percentiles of the image or volume,
    to the pixels 0..255; ZSCORE gives floats of mean 0 and deviation 1 over the image or volume;
    RAW gives the intensities as floats."""

    LEVELS = "levels"
    PERCENTILES = "percentiles"
    ZSCORE = "zscore"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Window:
    """How intensities become the raw elements that a network's input is made of."""

    kind: WindowKind
    low: float = 0.0
    high: float = 0.0

    @property
    def is_pixels(self) -> bool:
        return self.kind in (WindowKind.LEVELS, WindowKind.PERCENTILES)


@dataclass(frozen=True, slots=True)
class DataOptions:
    """The fields of `CompileOptions` about images, masks and their judgement.

    Attributes:
        calib: calibration images.
        data: a `.npz` with images and labels.
        data_keys: its arrays: images, labels and perhaps case names.
        images: a file or folder of images to judge on, in place of `data`.
        masks: the same for their masks.
        window: see `parse_window`; None takes pixels of 8 bits and floats as they are.
        slices: see `parse_slices`; None: axial for NIfTI, as acquired for DICOM.
        mask_values: what the numbers in masks are.
        tile_halo: pixels by which tiles of large images overlap on each side, 'auto' for the
            network's reach; None cuts them side by side.
        metric_threshold: probability from which a pixel is foreground, one channel.
        empty_dice: what empty masks count.
        dice_over: what the totals are means of.
        object_metrics: whether single objects are judged, too.
    """

    calib: str | None = None
    data: str | None = None
    data_keys: tuple[str, ...] | None = None
    images: str | None = None
    masks: str | None = None
    window: str | None = None
    slices: str | None = None
    mask_values: MaskValues = MaskValues.AUTO
    tile_halo: str | None = None
    metric_threshold: float = 0.5
    empty_dice: EmptyDice = EmptyDice.ONE
    dice_over: DiceOver = DiceOver.IMAGE
    object_metrics: bool = False

    @property
    def has_evaluation(self) -> bool:
        return self.data is not None or self.images is not None


DATA_CHOICES: dict[str, type[enum.Enum]] = {
    "mask_values": MaskValues,
    "empty_dice": EmptyDice,
    "dice_over": DiceOver,
}
DATA_PATHS = ("calib", "data", "images", "masks")
DATA_TEXTS = ("window", "slices", "tile_halo")
"""Options whose TOML form is text; `tile_halo` may be a number as well."""
REPORTED_DATA = (
    "window",
    "slices",
    "mask_values",
    "tile_halo",
    "empty_dice",
    "dice_over",
    "object_metrics",
)
"""Those that a report repeats (where they differ from the default): they decide what is measured,
and none is a path."""


def check_data(options: DataOptions) -> None:
    """
    Raises:
        UsageError: a value has no meaning, or two options contradict each other.
    """
    if not 0.0 <= options.metric_threshold <= 1.0:
        raise UsageError(
            f"--metric-threshold: {options.metric_threshold} is out of range; use 0.0 to 1.0"
        )
    if (options.images is None) != (options.masks is None):
        given, missing = (
            ("--images", "--masks") if options.masks is None else ("--masks", "--images")
        )
        raise UsageError(f"{given}: needs {missing}, too; images alone serve for --calib only")
    if options.images is not None and options.data is not None:
        raise UsageError(
            "--data and --images: both name the data to measure Dice on; give one of them"
        )
    if options.window is not None:
        parse_window(options.window)
    if options.slices is not None:
        parse_slices(options.slices)
    if options.tile_halo is not None:
        parse_halo(options.tile_halo)


def parse_data_keys(text: str) -> tuple[str, ...]:
    """'IMAGES,LABELS' or 'IMAGES,LABELS,CASES'.

    Raises:
        UsageError: the text has another form.
    """
    keys = tuple(text.split(","))
    if len(keys) not in (2, 3) or not all(keys):
        raise UsageError(
            f"--data-keys: '{text}' is not of the form IMAGES,LABELS or IMAGES,LABELS,CASES"
        )
    return keys


def parse_window(text: str) -> Window:
    """'-160,240', 'p1,p99', 'zscore' or 'raw'.

    Raises:
        UsageError: the text has another form.
    """
    for kind in (WindowKind.ZSCORE, WindowKind.RAW):
        if text == kind.value:
            return Window(kind)
    parts = [part.strip() for part in text.split(",")]
    percent = [part[:1] in ("p", "P") for part in parts]
    try:
        low, high = (float(part[1:] if part[:1] in ("p", "P") else part) for part in parts)
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high)) or percent[0] != percent[-1]:
        raise UsageError(
            f"--window: '{text}' is no window; write LOW,HIGH (such as -160,240), percentiles "
            f"(p1,p99), zscore or raw"
        )
    if low >= high or (percent[0] and not 0 <= low < high <= 100):
        raise UsageError(
            f"--window: '{text}' is empty or out of range; the first number must be the smaller"
        )
    return Window(WindowKind.PERCENTILES if percent[0] else WindowKind.LEVELS, low, high)


def parse_slices(text: str) -> int | str:
    """A stored axis (0, 1, 2), or where slices, rows and columns run to, such as 'SPL'.

    Raises:
        UsageError: the text is no plane, no axis and no such three letters.
    """
    if text in ("0", "1", "2"):
        return int(text)
    code = PLANES.get(text.lower(), text.upper())
    if sorted(_axis_of(letter) for letter in code) != [0, 1, 2]:
        raise UsageError(
            f"--slices: '{text}' is unknown; use axial, coronal, sagittal, a stored axis (0, 1, 2) "
            f"or where slices, rows and columns run to, such as SPL"
        )
    return code


def _axis_of(letter: str) -> int:
    return next((axis for axis, ends in enumerate(_AXES) if letter in ends), -1)


def parse_halo(text: str) -> int | None:
    """Pixels; None for 'auto'.

    Raises:
        UsageError: it is neither.
    """
    if text == AUTO_HALO:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= MOST_HALO):
        raise UsageError(
            f"--tile-halo: '{text}' is no halo; use 0 to {MOST_HALO} pixels, or {AUTO_HALO}"
        )
    return int(text)
