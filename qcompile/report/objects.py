"""Single objects (glands, nuclei): detection F1, object Dice and object Hausdorff distance.

The definitions are those of the GlaS challenge (Sirinukunwattana et al. 2017) and of its evaluation
code. S_i are the objects of the prediction, G_j those of the label, each partner the object of the
other side with the largest overlap:

- F1: S_i is found rightly if it covers more than half of its partner (the paper: at least half).
- object Dice: (sum of |S_i| D(S_i, its partner) / sum of |S_i| + the same of the G_j) / 2; D is 0
  without a partner.
- object Hausdorff: likewise with the Hausdorff distance in pixels; without overlap the partner is
  the object at the smallest distance. Where one side has no objects at all (infinity in the
  challenge's code) the distance is the diagonal of the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from qcompile.data_options import EmptyDice
from qcompile.errors import ToolError
from qcompile.report.metrics import counted_mean
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class ObjectCounts:
    """What one image (or several) adds to the metrics of one class.

    Attributes:
        right: objects of the prediction that were found rightly.
        found: objects of the prediction.
        wanted: objects of the label.
        found_area: pixels of the prediction's objects.
        wanted_area: of the label's.
        found_dice: sum over the prediction's objects of area times Dice.
        wanted_dice: likewise over the label's objects.
        found_distance: sum over the prediction's objects of area times Hausdorff distance.
        wanted_distance: likewise over the label's objects.
        diagonal: of the image, in pixels.
    """

    right: int
    found: int
    wanted: int
    found_area: int
    wanted_area: int
    found_dice: float
    wanted_dice: float
    found_distance: float
    wanted_distance: float
    diagonal: float

    def f1(self, empty: EmptyDice) -> float:
        if self._skipped(empty):
            return math.nan
        total = self.found + self.wanted
        return 2 * self.right / total if total else float(empty is EmptyDice.ONE)

    def dice(self, empty: EmptyDice) -> float:
        if self._skipped(empty):
            return math.nan
        if self.found + self.wanted == 0:
            return float(empty is EmptyDice.ONE)
        return (
            _ratio(self.found_dice, self.found_area, 0.0)
            + _ratio(self.wanted_dice, self.wanted_area, 0.0)
        ) / 2

    def hausdorff(self, empty: EmptyDice) -> float:
        """In pixels."""
        if self._skipped(empty):
            return math.nan
        if self.found + self.wanted == 0:
            return 0.0 if empty is EmptyDice.ONE else self.diagonal
        return (
            _ratio(self.found_distance, self.found_area, self.diagonal)
            + _ratio(self.wanted_distance, self.wanted_area, self.diagonal)
        ) / 2

    def _skipped(self, empty: EmptyDice) -> bool:
        return empty is EmptyDice.SKIP and self.wanted == 0


def _ratio(part: float, whole: int, otherwise: float) -> float:
    return part / whole if whole else otherwise


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """The objects of one class in a set of images. `mean_...` are means over images, `pooled_...`
    take the objects of all images together."""

    label: int
    images: tuple[ObjectCounts, ...]
    empty: EmptyDice = EmptyDice.ONE

    @property
    def mean_f1(self) -> float:
        return counted_mean(item.f1(self.empty) for item in self.images)

    @property
    def mean_dice(self) -> float:
        return counted_mean(item.dice(self.empty) for item in self.images)

    @property
    def mean_hausdorff(self) -> float:
        return counted_mean(item.hausdorff(self.empty) for item in self.images)

    @property
    def pooled_f1(self) -> float:
        return _together(self.images).f1(self.empty)

    @property
    def pooled_dice(self) -> float:
        return _together(self.images).dice(self.empty)

    @property
    def pooled_hausdorff(self) -> float:
        return _together(self.images).hausdorff(self.empty)


def _together(parts: Iterable[ObjectCounts]) -> ObjectCounts:
    items = list(parts)
    return ObjectCounts(
        sum(item.right for item in items),
        sum(item.found for item in items),
        sum(item.wanted for item in items),
        sum(item.found_area for item in items),
        sum(item.wanted_area for item in items),
        math.fsum(item.found_dice for item in items),
        math.fsum(item.wanted_dice for item in items),
        math.fsum(item.found_distance for item in items),
        math.fsum(item.wanted_distance for item in items),
        max(item.diagonal for item in items),
    )


def load_ndimage() -> ModuleType:
    """`scipy.ndimage`.

    Raises:
        ToolError: it is not installed.
    """
    try:
        from scipy import ndimage
    except ImportError:
        raise ToolError("--object-metrics: needs scipy; pip install 'qcompile[medical]'") from None
    module: ModuleType = ndimage
    return module


def label_objects(mask: Array) -> Array:
    """Objects of a mask as numbers from 1 on; pixels that touch at a corner belong together."""
    ndimage = load_ndimage()
    structure = np.ones((3,) * mask.ndim, dtype=bool)
    return np.asarray(ndimage.label(mask, structure=structure)[0])


def object_counts(found: Array, wanted: Array) -> ObjectCounts:
    """
    Args:
        found: objects of the prediction, numbers from 1 on; 0 is background.
        wanted: objects of the label, likewise; numbers may be missing.
    """
    first, second = _Objects.of(found), _Objects.of(wanted)
    diagonal = math.hypot(*(size - 1 for size in found.shape))
    both = (first.numbers > 0) & (second.numbers > 0)
    pairs = (first.numbers[both] - 1) * second.count + second.numbers[both] - 1
    common = np.bincount(pairs, minlength=first.count * second.count)
    common = common.reshape(first.count, second.count)
    right = 0
    for i in range(first.count):
        if second.count:
            j = int(common[i].argmax())
            right += int(2 * common[i, j] > second.areas[j])
    return ObjectCounts(
        right,
        first.count,
        second.count,
        int(first.areas.sum()),
        int(second.areas.sum()),
        _weighted_dice(common, first.areas, second.areas),
        _weighted_dice(common.T, second.areas, first.areas),
        _weighted_distance(common, first, second, diagonal),
        _weighted_distance(common.T, second, first, diagonal),
        diagonal,
    )


@dataclass(frozen=True)
class _Objects:
    """Numbered objects without gaps: number n is at `boxes[n - 1]`, whose first and last positions
    are `edges[n - 1]`."""

    numbers: Array
    count: int
    areas: Array
    boxes: Sequence[tuple[slice, ...]]
    edges: Array

    @staticmethod
    def of(image: Array) -> _Objects:
        names, inverse = np.unique(image, return_inverse=True)
        numbers = inverse.reshape(image.shape) + (0 if names.size and names[0] == 0 else 1)
        count = int(numbers.max(initial=0))
        areas = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
        boxes = load_ndimage().find_objects(numbers) if count else []
        edges = np.array([[at for s in box for at in (s.start, s.stop)] for box in boxes])
        return _Objects(numbers, count, areas, boxes, edges)


def _weighted_dice(common: Array, areas: Array, others: Array) -> float:
    """Sum over objects of area times Dice with the partner (0 without one)."""
    if not common.size:
        return 0.0
    partner = common.argmax(axis=1)
    shared = common[np.arange(len(areas)), partner]
    dice = 2 * shared / (areas + others[partner])
    return math.fsum((areas * dice).tolist())


def _weighted_distance(common: Array, ours: _Objects, theirs: _Objects, diagonal: float) -> float:
    """Sum over objects of area times Hausdorff distance to the partner."""
    total = []
    for i in range(ours.count):
        if not theirs.count:
            distance = diagonal
        elif common[i].any():
            distance = _hausdorff(ours, i, theirs, int(common[i].argmax()))
        else:
            distance = _least_hausdorff(ours, i, theirs)
        total.append(int(ours.areas[i]) * distance)
    return math.fsum(total)


def _least_hausdorff(ours: _Objects, i: int, theirs: _Objects) -> float:
    """The distance to the nearest of their objects, those first whose boxes are alike: the distance
    is at least that of any two sides of the boxes."""
    bounds = np.abs(theirs.edges - ours.edges[i]).max(axis=1)
    best = math.inf
    for j in np.argsort(bounds, kind="stable").tolist():
        if bounds[j] >= best:
            break
        best = min(best, _hausdorff(ours, i, theirs, j))
    return best


def _hausdorff(first: _Objects, i: int, second: _Objects, j: int) -> float:
    """max(max over A of the distance to B, max over B of the distance to A), in pixels."""
    box = tuple(
        slice(min(one.start, two.start), max(one.stop, two.stop))
        for one, two in zip(first.boxes[i], second.boxes[j], strict=True)
    )
    a, b = first.numbers[box] == i + 1, second.numbers[box] == j + 1
    return max(_farthest(a, b), _farthest(b, a))


def _farthest(points: Array, target: Array) -> float:
    """The largest distance of a point to the nearest pixel of the target."""
    distances = load_ndimage().distance_transform_edt(~target)
    return float(distances[points].max())


def counts_of_class(
    prediction: Array, label: Array, index: int, instances: Array | None = None
) -> ObjectCounts:
    """The objects of one class in one image.

    Args:
        prediction: class indices [*spatial].
        label: likewise.
        index: of the class.
        instances: the numbers of the label's objects, where they are known.
    """
    wanted = label_objects(label == index) if instances is None else instances
    return object_counts(label_objects(prediction == index), wanted)
