"""Writes `slices.npz`: axial slices of the MNI ICBM152 template with grey and white matter labels.

The template (a T1-weighted average brain, skull removed) and its maps of grey and white matter come
with the `nilearn` wheel; nothing is downloaded. Run it from any folder:

    python examples/brain/make_data.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from nilearn import datasets

BytePlanes = npt.NDArray[np.uint8]

FIRST_SLICE, LAST_SLICE = 14, 146
"""Axial slices (mm above the lower end of the volume) that show enough brain."""

ROWS, COLUMNS = slice(26, 210), slice(26, 170)
"""The brain, cut to 184 x 144 pixels of 1 mm: three halvings leave whole numbers."""

PERIOD, TRAIN, GAP, VALIDATION = 20, 10, 3, 4
"""Every 20 slices: 10 to train on, 3 unused, 4 to validate on, 3 unused.

Neighbouring slices look alike, so the parts are blocks, at least 5 mm apart; within a block every
second slice is kept.
"""


def load_volume(image: object) -> npt.NDArray[np.float64]:
    """A template volume [X, Y, Z] with values 0..1."""
    return np.asarray(image.get_fdata())  # type: ignore[attr-defined]


def slice_planes(volume: npt.NDArray[np.generic], indices: list[int]) -> BytePlanes:
    """Axial slices [N, 184, 144] of a volume, front of the head on top."""
    cropped = volume[COLUMNS, ROWS][:, :, indices]
    return np.ascontiguousarray(cropped.transpose(2, 1, 0)[:, ::-1], dtype=np.uint8)


def split_indices() -> tuple[list[int], list[int]]:
    """Slice numbers to train on and to validate on."""
    train, validation = [], []
    for index in range(FIRST_SLICE, LAST_SLICE + 1):
        place = (index - FIRST_SLICE) % PERIOD
        if place % 2 == 0 and place < TRAIN:
            train.append(index)
        elif place in (TRAIN + GAP, TRAIN + GAP + VALIDATION // 2):
            validation.append(index)
    return train, validation


def main() -> None:
    brain = load_volume(datasets.load_mni152_template(resolution=1))
    grey = load_volume(datasets.load_mni152_gm_template(resolution=1))
    white = load_volume(datasets.load_mni152_wm_template(resolution=1))
    pixels = np.round(brain * 255)
    labels = np.zeros(brain.shape, np.uint8)
    tissue = np.maximum(grey, white) > 0.5
    labels[tissue] = np.where(white > grey, 2, 1)[tissue]
    train, validation = split_indices()
    path = Path(__file__).with_name("slices.npz")
    np.savez_compressed(
        path,
        train_x=slice_planes(pixels, train),
        train_y=slice_planes(labels, train),
        val_x=slice_planes(pixels, validation),
        val_y=slice_planes(labels, validation),
    )
    print(f"{path.name}: {len(train)} training and {len(validation)} validation slices, ", end="")
    print(f"{path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
