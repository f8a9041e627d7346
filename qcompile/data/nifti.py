"""NIfTI files (`.nii`, `.nii.gz`) by nibabel."""

from __future__ import annotations

import functools
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.data.arrays import DAMAGED, MAX_ARRAY_BYTES
from qcompile.data.volume import VolumeFile
from qcompile.data_options import PLANES
from qcompile.errors import DataError, ToolError
from qcompile.types import Array

NIFTI_SUFFIXES = (".nii", ".nii.gz")


def is_nifti(path: Path) -> bool:
    """By its name."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def nifti_stem(path: Path) -> str:
    """'case_1' of 'case_1.nii.gz'."""
    name = path.name
    suffix = next(
        item
        for item in sorted(NIFTI_SUFFIXES, key=len, reverse=True)
        if name.lower().endswith(item)
    )
    return name[: -len(suffix)]


def open_nifti(path: Path) -> VolumeFile:
    """Reads the header.

    Raises:
        ToolError: nibabel is not installed.
        DataError: the file is damaged, too large, or no volume of numbers.
    """
    image = _load(path)
    shape = tuple(int(size) for size in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    shape += (1,) * (3 - len(shape))
    element = image.get_data_dtype()
    if len(shape) > 4:
        raise DataError(
            f"{path.name}: has {len(shape)} axes ({list(shape)}); give volumes of three, or of "
            f"four with the channels last"
        )
    if element.kind not in "biuf":
        raise DataError(f"{path.name}: has elements of type {element}; give numbers, one a voxel")
    if min(shape) < 1 or math.prod(shape) * element.itemsize > MAX_ARRAY_BYTES:
        raise DataError(
            f"{path.name}: shape {list(shape)} is empty or takes more than "
            f"{MAX_ARRAY_BYTES >> 20} MiB; crop or split it"
        )
    header = image.header
    known = int(header["qform_code"]) > 0 or int(header["sform_code"]) > 0
    if element.itemsize == 1 and _slope(image) != (1.0, 0.0):
        element = np.dtype(np.int16)  # numbers that stand for others are no pixels
    return VolumeFile(
        path.name,
        nifti_stem(path),
        shape,
        np.asarray(image.affine, dtype=np.float64) if known else None,
        element.newbyteorder("="),
        PLANES["axial"],
        functools.partial(_read, path, shape),
    )


def _load(path: Path) -> Any:
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
    except ImportError:
        raise ToolError(
            f"{path.name}: NIfTI needs nibabel; pip install 'qcompile[medical]'"
        ) from None
    # nibabel writes what it mends in headers to standard error.
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.nifti1.Nifti1Image):
            raise DataError(f"{path.name}: is no NIfTI file; convert it to .nii.gz")
        return image
    except (*DAMAGED, ImageFileError, HeaderDataError, AssertionError) as error:
        raise _damaged(path, error) from None


def _slope(image: Any) -> tuple[float, float]:
    slope, intercept = image.dataobj.slope, image.dataobj.inter
    return float(slope), float(intercept)


def _read(path: Path, shape: tuple[int, ...]) -> Array:
    image = _load(path)
    try:
        if _slope(image) != (1.0, 0.0):
            values = np.asarray(image.dataobj, dtype=np.float32)
        else:
            values = np.asanyarray(image.dataobj)
    except (*DAMAGED, AssertionError) as error:
        raise _damaged(path, error) from None
    # Not a view of the file: what changes on the disk meanwhile must not change a result.
    return np.array(values, dtype=values.dtype.newbyteorder("="), order="F").reshape(
        shape, order="F"
    )


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path.name}: cannot be read as NIfTI ({error})")
