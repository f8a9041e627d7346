"""Resize: the attributes that give the taps of the graph, or the taps themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from qcompile.exporter.scope import Scope
from qcompile.importer.operators.coordinates import Axis, sampled
from qcompile.importer.operators.resize import linear_taps, nearest_sources
from qcompile.ops import LinearResize, NearestResize

LINEAR_MODES = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
NEAREST_MODES = (
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "floor"),
    ("asymmetric", "ceil"),
    ("align_corners", "round_prefer_ceil"),
)

Match = Callable[[int, Sequence[Fraction]], bool]
"""match(axis, coordinates): whether they give the taps of this axis."""


def nearest_resize(op: NearestResize, scope: Scope) -> str:
    """The sources of a node with attributes; failing that one Gather an axis."""
    sizes = scope.shape()[2:]
    for coordinates, rounding in NEAREST_MODES:

        def match(axis: int, places: Sequence[Fraction], mode: str = rounding) -> bool:
            return nearest_sources(mode, sizes[axis], places) == op.sources[axis]

        if _fits(scope, coordinates, match):
            return _resize(scope, "nearest", coordinates, nearest_mode=rounding)
    result = scope.real()
    moved = [axis for axis, source in enumerate(op.sources) if source != tuple(range(sizes[axis]))]
    for number, axis in enumerate(moved or [0]):
        indices = scope.constant(f"sources{axis}", op.sources[axis], "int64")
        part = f"axis{axis}" if number + 1 < len(moved) else ""
        result = scope.node("Gather", result, indices, part=part, axis=axis + 2)
    return result


def linear_resize(op: LinearResize, scope: Scope) -> str:
    """The taps of a node with attributes; failing that two Gathers and a weighted sum an axis."""
    sizes = scope.shape()[2:]

    def match(axis: int, places: Sequence[Fraction]) -> bool:
        return linear_taps(sizes[axis], places) == op.taps[axis]

    for coordinates in LINEAR_MODES:
        if _fits(scope, coordinates, match):
            return _resize(scope, "linear", coordinates)
    result, rank = scope.real(), len(scope.shape())
    for axis, taps in enumerate(op.taps):
        second = [float(weight) for weight in taps.weights]
        if not any(second) and taps.first == tuple(range(sizes[axis])):
            continue
        terms = []
        for part, indices, weights in (
            (f"first{axis}", taps.first, [1 - weight for weight in second]),
            (f"second{axis}", taps.second, second),
        ):
            constant = scope.constant(part, indices, "int64")
            taken = scope.node("Gather", result, constant, part=part, axis=axis + 2)
            vector = scope.by_channel(f"{part}.weights", weights, axis + 2, rank)
            terms.append(scope.node("Mul", taken, vector, part=f"{part}/weights"))
        result = scope.node("Add", *terms, part=f"axis{axis}")
    return result


def _fits(scope: Scope, mode: str, match: Match) -> bool:
    """Whether a Resize to these sizes in this mode reads what the graph's operator reads."""
    pairs = zip(scope.shape()[2:], scope.kind.shape[2:], strict=True)
    for index, (size_in, size_out) in enumerate(pairs):
        places = sampled(mode, Axis(size_in, size_out, Fraction(size_out, size_in)))
        if places is None or not match(index, places):
            return False
    return True


def _resize(scope: Scope, mode: str, coordinates: str, **attributes: str) -> str:
    """By scales where they are whole numbers, as FINN and hls4ml want them; else by sizes."""
    before, after = scope.shape(), scope.kind.shape
    whole = all(new % old == 0 for old, new in zip(before, after, strict=True))
    if whole:
        scales = [new // old for old, new in zip(before, after, strict=True)]
        operands = ["", scope.constant("scales", scales)]
    else:
        operands = ["", "", scope.constant("sizes", after, "int64")]
    return scope.node(
        "Resize",
        scope.real(),
        *operands,
        mode=mode,
        coordinate_transformation_mode=coordinates,
        **attributes,
    )
