"""Small NIfTI and DICOM files whose voxels say where in the patient they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.types import Array

SIZE = (6, 8, 4)
"""Voxels to the right, to the front and to the head; 1, 1 and 2 mm."""
SPACING = (1.0, 1.0, 2.0)


def patient() -> Array:
    """int16 [right, front, head]: no two voxels are alike, negative ones too."""
    return np.arange(np.prod(SIZE), dtype=np.int16).reshape(SIZE) - 50


def blob() -> Array:
    """A mask in the same place, uint8: larger towards the head."""
    mask = np.zeros(SIZE, np.uint8)
    mask[1:3, 2:5, 1] = 1
    mask[1:5, 2:7, 2] = 1
    return mask


def axial(values: Array) -> Array:
    """[head, back, left]: what axial slices must show of [right, front, head]."""
    return values.transpose(2, 1, 0)[:, ::-1, ::-1]


def save_nifti(
    path: Path, values: Array, axes: str = "RAS", *, coded: bool = True, slope: float | None = None
) -> Path:
    """Stores [right, front, head] with axes that run as `axes` says.

    Args:
        path: ends in .nii or .nii.gz.
        values: of the patient.
        axes: where the stored axes run to.
        coded: whether the header says how the volume lies.
        slope: stored numbers are values / slope.
    """
    import nibabel

    order = [next(at for at, pair in enumerate(("RL", "AP", "SI")) if c in pair) for c in axes]
    stored = values.transpose(order)
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[:3, 3] = (10, 20, 30)
    for place, (axis, letter) in enumerate(zip(order, axes, strict=True)):
        forward = letter in "RAS"
        affine[axis, place] = SPACING[axis] if forward else -SPACING[axis]
        if not forward:
            stored = np.flip(stored, place)
            affine[axis, 3] += SPACING[axis] * (SIZE[axis] - 1)
    image = nibabel.Nifti1Image(np.ascontiguousarray(stored), affine)
    if slope is not None:
        image = nibabel.Nifti1Image((stored / slope).astype(np.int16), affine)
        image.header.set_slope_inter(slope, 0)
    if not coded:
        image.set_sform(None, 0)
        image.set_qform(None, 0)
    nibabel.save(image, str(path))
    return path


Change = Callable[[int, Any], None]
"""Called with the number of a slice and its data set before it is written."""


def save_series(
    folder: Path,
    values: Array,
    change: Change | None = None,
    *,
    slope: float = 1,
    intercept: float = -50,
    series: str = "1.2.3",
) -> Path:
    """Stores [right, front, head] as an axial series; file names are not in the order of slices."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    slices = axial(values)
    for at, plane in enumerate(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{at + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"IM{(7 * at + 3) % 11:02}.dcm"
        tags: Any = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        tags.SOPClassUID = CTImageStorage
        tags.SOPInstanceUID = f"{series}.{at + 1}"
        tags.SeriesInstanceUID = series
        tags.Modality = "CT"
        tags.Rows, tags.Columns = plane.shape
        tags.SamplesPerPixel = 1
        tags.PhotometricInterpretation = "MONOCHROME2"
        tags.BitsAllocated, tags.BitsStored, tags.HighBit = 16, 12, 11
        tags.PixelRepresentation = 0
        tags.RescaleSlope, tags.RescaleIntercept = slope, intercept
        tags.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        # DICOM counts to the left and to the back: the first pixel is the rightmost, foremost one.
        right, front = 10 + SPACING[0] * (SIZE[0] - 1), 20 + SPACING[1] * (SIZE[1] - 1)
        tags.ImagePositionPatient = [-right, -front, 30 + SPACING[2] * at]
        tags.PixelSpacing = [SPACING[1], SPACING[0]]
        tags.InstanceNumber = at + 1
        stored = np.round((plane.astype(np.float64) - intercept) / slope).astype(np.uint16)
        tags.PixelData = stored.tobytes()
        if change is not None:
            change(at, tags)
        tags.save_as(path, enforce_file_format=True)
    return folder
