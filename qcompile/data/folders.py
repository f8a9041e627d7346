"""Files and folders of images and masks: what they hold, and which mask belongs to which image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qcompile.data.dicom import is_dicom, open_series
from qcompile.data.intensity import Stretch
from qcompile.data.item import Item, LastRead
from qcompile.data.nifti import is_nifti, nifti_stem, open_nifti
from qcompile.data.pictures import PICTURE_SUFFIXES, picture_items, picture_masks
from qcompile.data.volume import (
    Cut,
    VolumeFile,
    check_same_place,
    cut_for,
    volume_items,
    volume_masks,
)
from qcompile.data_options import Window
from qcompile.errors import DataError
from qcompile.types import Array

MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How files become images.

    Attributes:
        window: intensities to raw elements; None leaves 8-bit pixels and floats as they are.
        slices: how volumes are cut, as `parse_slices` says; None as each kind of file has it.
        whole: volumes are not cut (for 3-D networks).
    """

    window: Window | None = None
    slices: int | str | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A picture or a volume: `stem` is its name without folders and suffix."""

    stem: str
    content: Path | VolumeFile

    @property
    def name(self) -> str:
        return self.content.name


def find_sources(path: Path) -> list[Source]:
    """The pictures and volumes of a file or folder, by name.

    A folder holds pictures, NIfTI files, the DICOM files of one series (or single DICOM images), or
    subfolders with one DICOM series each. Other files and subfolders are passed over.

    Raises:
        DataError: there are none, or too many.
        ToolError: a library to read them is not installed.
    """
    if not path.is_dir():
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is not a regular file; give images, NIfTI or DICOM")
        found = _sources([path], path.stem)
        if not found:
            raise DataError(
                f"{path}: is no picture ({', '.join(PICTURE_SUFFIXES)}), NIfTI or DICOM file"
            )
        return found
    inside = sorted(path.iterdir())
    found = _sources([item for item in inside if item.is_file()], path.resolve().name)
    for folder in (item for item in inside if item.is_dir()):
        files = sorted(file for file in folder.rglob("*") if file.is_file() and is_dicom(file))
        if files:
            volumes = open_series(files, folder.name)
            if len(volumes) > 1:
                raise DataError(
                    f"{folder.name}: holds {len(volumes)} single DICOM images of different series; "
                    f"put them into {path.name} itself, or give each series a folder"
                )
            found.append(Source(folder.name, volumes[0]))
    if not found:
        raise DataError(
            f"{path}: holds no .png, .tif, .tiff or other pictures, no NIfTI and no DICOM images"
        )
    if len(found) > MAX_FILES:
        raise DataError(f"{path}: holds more than {MAX_FILES} images; use fewer")
    return sorted(found, key=lambda source: source.name)


def _sources(files: Sequence[Path], folder: str) -> list[Source]:
    found = [Source(file.stem, file) for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    found += [Source(nifti_stem(file), open_nifti(file)) for file in files if is_nifti(file)]
    series = [
        file
        for file in files
        if file.suffix.lower() not in PICTURE_SUFFIXES and not is_nifti(file) and is_dicom(file)
    ]
    if series:
        found += [Source(volume.case, volume) for volume in open_series(series, folder)]
    return found


def image_items(
    sources: Sequence[Source], channels: int, options: ReadingOptions
) -> list[list[Item]]:
    """The images of each source: pages or slices. One volume at a time is kept in memory.

    Raises:
        DataError: a source cannot be read so.
    """
    cache: LastRead[tuple[Array, Stretch | None]] = LastRead()
    found = []
    for source in sources:
        if isinstance(source.content, Path):
            found.append(picture_items(source.content, channels, options.window))
            continue
        cut = cut_for(source.content, options.slices)
        items = volume_items(source.content, cut, options.window, cache, whole=options.whole)
        found.append(items)
    return found


def mask_items(pairs: Sequence[tuple[Source, Source]], options: ReadingOptions) -> list[list[Item]]:
    """The masks of each pair of image and mask, cut like the image. One volume at a time is kept in
    memory.

    Raises:
        DataError: a mask lies or is cut differently.
    """
    cache: LastRead[Array] = LastRead()
    return [_masks_of(image, mask, options, cache) for image, mask in pairs]


def _masks_of(
    image: Source, mask: Source, options: ReadingOptions, cache: LastRead[Array]
) -> list[Item]:
    if isinstance(mask.content, Path):
        return picture_masks(mask.content)
    if isinstance(image.content, Path):
        raise DataError(
            f"mask {mask.name}: is a volume, its image {image.name} a picture; give both alike"
        )
    image_cut = cut_for(image.content, options.slices)
    mask_cut = _like(mask.content, image.content, options.slices)
    check_same_place(image.content, image_cut, mask.content, mask_cut)
    return volume_masks(mask.content, mask_cut, cache, whole=options.whole)


def _like(mask: VolumeFile, image: VolumeFile, slices: int | str | None) -> Cut:
    """How a mask is cut: in the plane of its image."""
    return cut_for(mask, image.slices if slices is None else slices)


def paired(images: Sequence[Source], masks: Sequence[Source]) -> list[tuple[Source, Source]]:
    """Each image with the mask of its stem; a suffix that all masks have more than their images
    (`_mask`), or all images more than their masks (`_0000` of nnU-Net), is allowed.

    Masks without an image are passed over.

    Raises:
        DataError: two have one stem, or an image has no mask.
    """
    by_stem = _by_stem(masks, "mask")
    stems = list(_by_stem(images, "image"))
    for rename in _renamings(stems, list(by_stem)):
        if all(rename(stem) in by_stem for stem in stems):
            return [(image, by_stem[rename(image.stem)]) for image in images]
    missing = [stem for stem in stems if stem not in by_stem]
    raise DataError(
        f"--masks: {len(missing)} of {len(stems)} images have no mask of their name (first "
        f"'{missing[0]}'); masks are named like their images, or with one suffix more"
    )


class _Suffix:
    def __init__(self, more: str, less: str) -> None:
        self._more, self._less = more, less

    def __call__(self, stem: str) -> str:
        return stem.removesuffix(self._less) + self._more if stem.endswith(self._less) else stem


def _renamings(images: Sequence[str], masks: Sequence[str]) -> list[_Suffix]:
    first = images[0]
    longer = sorted({mask[len(first) :] for mask in masks if mask.startswith(first)} - {""})
    shorter = sorted({first[len(mask) :] for mask in masks if first.startswith(mask)} - {""})
    return [_Suffix("", ""), *(_Suffix(s, "") for s in longer), *(_Suffix("", s) for s in shorter)]


def _by_stem(sources: Sequence[Source], what: str) -> dict[str, Source]:
    result: dict[str, Source] = {}
    for source in sources:
        if source.stem in result:
            raise DataError(
                f"{what} {source.name}: has the same name without suffix as "
                f"{result[source.stem].name}; remove one"
            )
        result[source.stem] = source
    return result


def check_pages(image: Source, items: Sequence[Item], masks: Sequence[Item]) -> None:
    """
    Raises:
        DataError: an image has another number of pages or slices than its mask.
    """
    if len(items) != len(masks):
        raise DataError(
            f"{image.name}: has {len(items)} pages or slices, its mask has {len(masks)}"
        )
