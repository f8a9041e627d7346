"""DICOM images and series by pydicom: slices sorted by where they lie, rescaled intensities."""

from __future__ import annotations

import functools
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.data.arrays import MAX_ARRAY_BYTES
from qcompile.data.volume import VolumeFile, orientation
from qcompile.errors import DataError, QCompileError, ToolError
from qcompile.types import Array, Shape

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_MAGIC_AT, _MAGIC = 128, b"DICM"
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_SAME_DIRECTION = 1e-3
_SAME_POSITION = 1e-3
"""Millimetres."""
_UNEVEN = 0.1
"""Share by which the distance of two slices may differ from the usual one."""


@dataclass(frozen=True)
class _Slice:
    """The header of one file."""

    path: Path
    series: str
    shape: Shape
    number: int | None
    directions: Array | None
    position: Array | None
    spacing: tuple[float, float]
    slope: float
    intercept: float
    inverted_from: int | None
    signed: bool
    bits: int


def is_dicom(path: Path) -> bool:
    """By its suffix or, where it has none, by its first bytes."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    if path.suffix and not path.suffix[1:].isdigit():
        return False  # names such as IM0001 and 1.2.840.113619.2 are common
    try:
        with path.open("rb") as stream:
            stream.seek(_MAGIC_AT)
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def open_series(paths: Sequence[Path], folder: str) -> list[VolumeFile]:
    """The volumes that DICOM files make: several files of one series make one volume, named after
    the folder; a file that is alone in its series is an image of its own, named after the file.

    Files without pixels (structures, reports) are passed over.

    Raises:
        ToolError: pydicom is not installed.
        DataError: a file is damaged, a slice is missing, or slices do not fit together.
    """
    groups: dict[str, list[_Slice]] = {}
    for path in paths:
        header = _header(path)
        if header is not None:
            groups.setdefault(header.series, []).append(header)
    if not groups:
        raise DataError(f"{folder}: its DICOM files hold no images")
    volumes = [slices for slices in groups.values() if len(slices) > 1]
    if len(volumes) > 1 or (volumes and len(groups) > 1):
        names = ", ".join(sorted(slices[0].path.name for slices in groups.values())[:4])
        raise DataError(
            f"{folder}: holds {len(groups)} DICOM series (one each with {names}); give each a "
            f"folder of its own"
        )
    if volumes:
        return [_volume(volumes[0], folder)]
    return [_volume(slices, slices[0].path.stem) for slices in groups.values()]


def _header(path: Path) -> _Slice | None:
    with _reading(path) as pydicom:
        tags = pydicom.dcmread(path, stop_before_pixels=True)
        if str(tags.get("SOPClassUID", "")) == _SEGMENTATION:
            raise DataError(
                f"{path.name}: is a DICOM segmentation object; convert it to NIfTI or to PNG masks"
            )
        if "Rows" not in tags or "Columns" not in tags:
            return None
        if int(tags.get("NumberOfFrames", 1) or 1) > 1:
            raise DataError(
                f"{path.name}: holds {tags.NumberOfFrames} frames; convert it to NIfTI (dcm2niix) "
                f"or to one file a slice"
            )
        samples = int(tags.get("SamplesPerPixel", 1))
        meaning = str(tags.get("PhotometricInterpretation", "MONOCHROME2"))
        if meaning == "PALETTE COLOR" or samples not in (1, 3):
            raise DataError(
                f"{path.name}: has {samples} samples a pixel ({meaning}); convert it to grey or RGB"
            )
        cosines = _numbers(tags, "ImageOrientationPatient", 6)
        bits = int(tags.get("BitsStored", tags.get("BitsAllocated", 16)))
        signed = bool(int(tags.get("PixelRepresentation", 0) or 0))
        rows, columns = int(tags.Rows), int(tags.Columns)
        spacing = _numbers(tags, "PixelSpacing", 2)
        number = tags.get("InstanceNumber")
        return _Slice(
            path,
            str(tags.get("SeriesInstanceUID", "")) or path.name,
            (rows, columns) if samples == 1 else (rows, columns, samples),
            None if number in (None, "") else int(number),
            None if cosines is None else cosines.reshape(2, 3),
            _numbers(tags, "ImagePositionPatient", 3),
            (1.0, 1.0) if spacing is None else (float(spacing[0]), float(spacing[1])),
            _number(tags, "RescaleSlope", 1.0),
            _number(tags, "RescaleIntercept", 0.0),
            (-1 if signed else (1 << bits) - 1) if meaning == "MONOCHROME1" else None,
            signed,
            bits,
        )


def _numbers(tags: Any, key: str, count: int) -> Array | None:
    values = tags.get(key)
    if values is None or values == "":
        return None
    found = np.asarray([float(value) for value in values], dtype=np.float64)
    if len(found) != count or not np.isfinite(found).all():
        raise DataError(f"{tags.filename}: its {key} is no list of {count} numbers")
    return found


def _number(tags: Any, key: str, default: float) -> float:
    value = tags.get(key)
    number = default if value in (None, "") else float(value)
    if not math.isfinite(number):
        raise DataError(f"{tags.filename}: its {key} is {number}")
    return number


def _volume(slices: list[_Slice], name: str) -> VolumeFile:
    """
    Raises:
        DataError: the slices differ in size or direction, or one is missing.
    """
    label = name if len(slices) > 1 else slices[0].path.name
    first = slices[0]
    for item in slices[1:]:
        if item.shape != first.shape:
            raise DataError(
                f"{item.path.name}: is {_by(item.shape)} where {first.path.name} of the same "
                f"series is {_by(first.shape)}; a series has slices of one size"
            )
    ordered, affine = _placed(slices, label)
    shape = (len(ordered), *first.shape)
    if math.prod(shape) * 4 > MAX_ARRAY_BYTES:
        raise DataError(f"{label}: shape {list(shape)} takes more than 1024 MiB; crop or split it")
    colour = len(first.shape) == 3
    plain = all(item.slope == 1 and item.intercept == 0 for item in ordered)
    bytes_only = all(item.bits <= 8 and not item.signed for item in ordered)
    deep = np.int16 if first.signed else np.uint16
    element: np.dtype[np.generic] = np.dtype(np.uint8 if plain and bytes_only else deep)
    whole = np.int32 if all(item.bits <= 16 for item in ordered) else np.int64
    result = element if element == np.uint8 else np.dtype(whole if plain else np.float32)
    acquired: int | str = 0
    if affine is not None and not colour:
        acquired = orientation(affine, label)
    return VolumeFile(
        label, name, shape, affine, element, acquired, functools.partial(_read, ordered, result)
    )


def _placed(slices: list[_Slice], label: str) -> tuple[tuple[_Slice, ...], Array | None]:
    """The slices in order of position (or number), and the affine of [slices, rows, columns]."""
    first = slices[0]
    known = [item for item in slices if item.directions is not None and item.position is not None]
    if len(known) < len(slices):
        if len(slices) > 1 and any(item.number is None for item in slices):
            raise DataError(
                f"{label}: its slices have neither positions nor numbers, so their order is unknown"
            )
        return tuple(sorted(slices, key=lambda item: (item.number or 0, item.path.name))), None
    assert first.directions is not None
    for item in slices:
        assert item.directions is not None
        if np.abs(item.directions - first.directions).max() > _SAME_DIRECTION:
            raise DataError(
                f"{item.path.name}: lies in another direction than {first.path.name} of the same "
                f"series; give each orientation a folder of its own"
            )
    along_columns, along_rows = first.directions
    normal = np.cross(along_columns, along_rows)
    if np.linalg.norm(normal) < 1 - 1e-2:
        raise DataError(f"{label}: its ImageOrientationPatient has no two directions")
    places = [float(normal @ item.position) for item in slices if item.position is not None]
    order = np.argsort(places, kind="stable")
    ordered = tuple(slices[at] for at in order)
    step = _even_step([places[at] for at in order], ordered, label)
    affine = np.eye(4)
    affine[:3, 0] = normal * step
    affine[:3, 1] = along_rows * first.spacing[0]
    affine[:3, 2] = along_columns * first.spacing[1]
    assert ordered[0].position is not None
    affine[:3, 3] = ordered[0].position
    affine[:2] *= -1  # DICOM counts to the left and to the back
    return ordered, affine


def _even_step(places: list[float], slices: Sequence[_Slice], label: str) -> float:
    """The distance of neighbouring slices in mm."""
    if len(places) < 2:
        return 1.0
    steps = np.diff(places)
    if steps.min() < _SAME_POSITION:
        at = int(np.argmin(steps))
        raise DataError(
            f"{label}: {slices[at].path.name} and {slices[at + 1].path.name} lie in the same "
            f"place; give one phase or echo in each folder"
        )
    usual = float(np.median(steps))
    at = int(np.argmax(np.abs(steps - usual)))
    if abs(steps[at] - usual) > _UNEVEN * usual:
        raise DataError(
            f"{label}: slices are missing or uneven: {steps[at]:g} mm between "
            f"{slices[at].path.name} and {slices[at + 1].path.name} where others are {usual:g} mm "
            f"apart; complete the series"
        )
    return usual


def _read(slices: Sequence[_Slice], element: np.dtype[np.generic]) -> Array:
    result = np.empty((len(slices), *slices[0].shape), dtype=element)
    for at, item in enumerate(slices):
        with _reading(item.path) as pydicom:
            tags = pydicom.dcmread(item.path)
            pixels = _pixels(tags, item)
        if pixels.shape != item.shape:
            raise DataError(
                f"{item.path.name}: its pixels are {_by(pixels.shape)}, its header says "
                f"{_by(item.shape)}"
            )
        if item.inverted_from is not None:
            pixels = item.inverted_from - pixels.astype(np.int64)
        if element.kind == "f":
            result[at] = pixels * item.slope + item.intercept
        else:
            result[at] = pixels
    return result


def _pixels(tags: Any, item: _Slice) -> Array:
    """Colours come as RGB.

    Raises:
        DataError: they are compressed in a way that nothing installed decodes.
    """
    syntax = tags.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        from pydicom.pixels.decoders.base import get_decoder

        try:
            available = get_decoder(syntax).is_available
        except NotImplementedError:
            available = False
        if not available:
            raise DataError(
                f"{item.path.name}: is compressed as {syntax.name}, for which no decoder is "
                f"installed; pip install 'pylibjpeg[all]', or decompress it (gdcmconv --raw)"
            )
    return np.asarray(tags.pixel_array)


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """pydicom, with what it says of damaged files as a `DataError`, and nothing printed."""
    try:
        import pydicom
    except ImportError:
        raise ToolError(
            f"{path.name}: DICOM needs pydicom; pip install 'qcompile[medical]'"
        ) from None
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield pydicom
    except QCompileError:
        raise
    except Exception as error:  # pydicom and its decoders raise many kinds at damaged files
        raise DataError(f"{path.name}: cannot be read as DICOM ({error})") from None
    finally:
        logger.setLevel(level)


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape))
