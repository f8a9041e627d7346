"""NIfTI and DICOM volumes: what lies where in their slices, and what is wrong with damaged ones."""

from __future__ import annotations

import builtins
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qcompile.data.folders import ReadingOptions, find_sources, image_items
from qcompile.data.intensity import Stretch, resolve_window
from qcompile.data.item import Item
from qcompile.data_options import Window, WindowKind, parse_slices, parse_window
from qcompile.errors import DataError, QCompileError, ToolError
from qcompile.types import Array
from tests.data.volumes import SIZE, axial, patient, save_nifti, save_series

RAW = ReadingOptions(parse_window("raw"))
ORIENTATIONS = ("RAS", "LPS", "LAS", "PIR", "SRA", "ASL")


def items_of(path: Path, options: ReadingOptions = RAW) -> list[Item]:
    return [item for items in image_items(find_sources(path), 1, options) for item in items]


def slices_of(path: Path, options: ReadingOptions = RAW) -> Array:
    return np.stack([item.load() for item in items_of(path, options)])


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_axial_slices_whatever_way_a_volume_is_stored(axes: str, tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", patient(), axes)
    items = items_of(path)
    assert [item.case for item in items] == ["a"] * SIZE[2]
    assert items[2].name == "a.nii.gz slice 2"
    assert items[0].shape == (SIZE[1], SIZE[0])
    assert items[0].is_float
    np.testing.assert_array_equal(slices_of(path), axial(patient()))


@pytest.mark.parametrize("axes", ORIENTATIONS)
@pytest.mark.parametrize(
    ("plane", "expected"),
    [
        ("coronal", lambda v: v.transpose(1, 2, 0)[::-1, ::-1, ::-1]),
        ("sagittal", lambda v: v.transpose(0, 2, 1)[::-1, ::-1, ::-1]),
        ("SRA", lambda v: v.transpose(2, 0, 1)),
    ],
)
def test_planes(axes: str, plane: str, expected: Callable[[Array], Array], tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", patient(), axes)
    options = ReadingOptions(parse_window("raw"), parse_slices(plane))
    np.testing.assert_array_equal(slices_of(path, options), expected(patient()))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_stored_axes_are_taken_as_they_are(axis: int, tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", patient(), coded=False)
    options = ReadingOptions(parse_window("raw"), axis)
    np.testing.assert_array_equal(slices_of(path, options), np.moveaxis(patient(), axis, 0))
    with pytest.raises(DataError, match=r"does not say how it lies.*--slices 0, 1 or 2"):
        items_of(path)


def test_a_series_gives_what_the_nifti_file_of_the_same_patient_gives(tmp_path: Path) -> None:
    series = save_series(tmp_path / "case_7", patient())
    np.testing.assert_array_equal(slices_of(series), axial(patient()))
    assert {item.case for item in items_of(series)} == {"case_7"}
    options = ReadingOptions(parse_window("raw"), parse_slices("coronal"))
    nifti = save_nifti(tmp_path / "a.nii", patient())
    np.testing.assert_array_equal(slices_of(series, options), slices_of(nifti, options))


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    values = patient() * 4
    nifti = save_nifti(tmp_path / "a.nii", values, slope=4)
    np.testing.assert_array_equal(slices_of(nifti), axial(values))
    series = save_series(tmp_path / "s", values, slope=4, intercept=-400)
    np.testing.assert_array_equal(slices_of(series), axial(values))


def test_several_series_in_folders_and_whole_volumes(tmp_path: Path) -> None:
    for name in ("b", "a"):
        save_series(tmp_path / name / "study" / "ct", patient(), series=f"1.2.{ord(name)}")
    (tmp_path / "notes").mkdir()
    assert [source.stem for source in find_sources(tmp_path)] == ["a", "b"]
    whole = ReadingOptions(parse_window("raw"), whole=True)
    assert [item.shape for item in items_of(tmp_path, whole)] == [(4, 8, 6)] * 2
    np.testing.assert_array_equal(items_of(tmp_path, whole)[1].load(), axial(patient()))


def test_single_dicom_images_and_inverted_greys(tmp_path: Path) -> None:
    def change(at: int, tags: Any) -> None:
        tags.SeriesInstanceUID = f"1.2.3.{at}"
        tags.PhotometricInterpretation = "MONOCHROME1"
        del tags.ImagePositionPatient

    save_series(tmp_path, patient(), change, intercept=-50)
    items = items_of(tmp_path)
    assert [item.case for item in items] == ["IM02", "IM03", "IM06", "IM10"]
    # Slice 0 is IM03; its greys run from white to black: 4095 - stored.
    np.testing.assert_array_equal(items[1].load(), 4095 - (axial(patient())[0] + 50) - 50)


def test_windows() -> None:
    values = np.array([-200, -160, -159.2, 40, 240, 900])
    level = resolve_window(parse_window("-160,240"), values, "x")
    assert level.apply(values).tolist() == [0, 0, 1, 128, 255, 255]
    assert level.apply(values).dtype == np.uint8
    percent = resolve_window(parse_window("p0,p50"), np.arange(101), "x")
    assert percent == Stretch(WindowKind.PERCENTILES, 0, 50)
    score = resolve_window(parse_window("zscore"), np.array([1, 3]), "x")
    assert score.apply(np.array([1, 3])).tolist() == [-1, 1]
    flat = np.full(3, 7)
    for text in ("p1,p99", "zscore"):
        assert not resolve_window(parse_window(text), flat, "x").apply(flat).any()
    with pytest.raises(DataError, match="NaN"):
        resolve_window(Window(WindowKind.RAW), np.array([np.nan]), "x")


def test_percentiles_are_those_of_the_volume(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", patient())
    found = slices_of(path, ReadingOptions(parse_window("p0,p100")))
    assert found.dtype == np.uint8
    assert (found[0].min(), found[-1].max()) == (0, 255)
    assert found[0].max() < 255


def test_channels_of_a_volume_come_last(tmp_path: Path) -> None:
    import nibabel

    both = np.stack([patient(), patient() * 2], axis=-1)
    nibabel.save(nibabel.Nifti1Image(both, np.diag([1, 1, 2, 1])), str(tmp_path / "a.nii"))
    found = slices_of(tmp_path / "a.nii")
    assert found.shape == (4, 8, 6, 2)
    np.testing.assert_array_equal(found[..., 1], axial(patient() * 2))


def test_deep_integers_need_a_window(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", patient())
    with pytest.raises(DataError, match=r"a\.nii: .*int16.*--window"):
        items_of(path, ReadingOptions())
    with pytest.raises(DataError, match=r"--window"):
        items_of(save_series(tmp_path / "s", patient()), ReadingOptions())
    pixels = save_nifti(tmp_path / "b.nii", patient().clip(0).astype(np.uint8))
    assert items_of(pixels, ReadingOptions())[0].load().dtype == np.uint8
    floats = save_nifti(tmp_path / "c.nii", patient().astype(np.float32))
    assert items_of(floats, ReadingOptions())[0].is_float


@pytest.mark.parametrize(("module", "name"), [("nibabel", "a.nii"), ("pydicom", "a.dcm")])
def test_a_missing_library_names_the_extra(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"x")
    found = builtins.__import__

    def refuse(wanted: str, *rest: Any) -> Any:
        if wanted.split(".")[0] == module:
            raise ImportError(wanted)
        return found(wanted, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ToolError, match=r"pip install 'qcompile\[medical\]'"):
        find_sources(tmp_path)


def test_damaged_nifti_files(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", patient())
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[:-40], gzip.compress(gzip.decompress(whole)[:400])):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.nii\.gz: cannot be read as NIfTI"):
            slices_of(path)
    header = bytearray(gzip.decompress(whole))
    header[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(header)))
    with pytest.raises(DataError, match="takes more than 1024 MiB"):
        items_of(path)


def test_flat_affines(tmp_path: Path) -> None:
    import nibabel

    affine = np.diag([1.0, 0.0, 1.0, 1.0])
    image = nibabel.Nifti1Image(patient(), None)
    image.header["sform_code"] = 1
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
    nibabel.save(nibabel.Nifti1Image(patient(), None, image.header), str(tmp_path / "a.nii"))
    with pytest.raises(DataError, match="has no three directions"):
        items_of(tmp_path / "a.nii")


def test_damaged_files_are_errors_of_ours_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "n").mkdir()
    nifti = save_nifti(tmp_path / "n" / "a.nii", patient())
    dicom = sorted(save_series(tmp_path / "d", patient()).iterdir())[1]
    generator = np.random.default_rng(2)
    failures = 0
    for path in (nifti, dicom):
        whole = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for at in generator.integers(0, min(len(whole), 1200), 4):
                damaged[at] = generator.integers(0, 256)
            path.write_bytes(damaged[: generator.integers(200, 2 * len(whole))])
            try:
                slices_of(path.parent)
            except QCompileError:
                failures += 1
        path.write_bytes(whole)
    assert failures > 20


def changed(at: int, **values: Any) -> Callable[[int, Any], None]:
    def change(number: int, tags: Any) -> None:
        if number == at:
            for key, value in values.items():
                setattr(tags, key, value)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(2, Columns=3, Rows=16), "is 16x3 where .* of the same series is 8x6"),
        (changed(1, ImageOrientationPatient=[0, 1, 0, 1, 0, 0]), "lies in another direction"),
        (changed(3, ImagePositionPatient=[-15, -27, 40]), "slices are missing or uneven: 6 mm"),
        (changed(3, ImagePositionPatient=[-15, -27, 34]), "lie in the same place"),
        (changed(0, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"), "segmentation object"),
        (changed(0, NumberOfFrames=3), "holds 3 frames"),
        (changed(0, SamplesPerPixel=2), "2 samples a pixel"),
        (changed(1, SeriesInstanceUID="9.9"), "holds 2 DICOM series"),
        (changed(1, RescaleSlope="1e400"), "RescaleSlope is inf|cannot be read as DICOM"),
    ],
)
def test_series_that_do_not_fit_together(
    change: Callable[[int, Any], None], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        slices_of(save_series(tmp_path / "s", patient(), change))
    assert "\n" not in str(caught.value)


def test_a_missing_slice(tmp_path: Path) -> None:
    folder = save_series(tmp_path / "s", patient())
    (folder / "IM10.dcm").unlink()
    with pytest.raises(DataError, match=r"slices are missing or uneven: 4 mm between IM03.*IM06"):
        slices_of(folder)


def test_slices_without_positions_go_by_number(tmp_path: Path) -> None:
    def change(at: int, tags: Any) -> None:
        del tags.ImagePositionPatient

    folder = save_series(tmp_path / "s", patient(), change)
    np.testing.assert_array_equal(slices_of(folder), axial(patient()))
    with pytest.raises(DataError, match="does not say how it lies"):
        items_of(folder, ReadingOptions(parse_window("raw"), "SPL"))

    def numberless(at: int, tags: Any) -> None:
        del tags.ImagePositionPatient
        del tags.InstanceNumber

    with pytest.raises(DataError, match="neither positions nor numbers"):
        items_of(save_series(tmp_path / "t", patient(), numberless))


def test_compression_without_a_decoder(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGLSLossless

    def change(at: int, tags: Any) -> None:
        tags.file_meta.TransferSyntaxUID = JPEGLSLossless
        tags.PixelData = encapsulate([b"\xff\xd8\xff\xf7" + b"\0" * 60])
        tags["PixelData"].VR = "OB"

    folder = save_series(tmp_path / "s", patient(), change)
    with pytest.raises(DataError, match=r"is compressed as JPEG-LS .* no decoder is installed"):
        slices_of(folder)


def test_folders_without_images(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(DataError, match="no NIfTI and no DICOM"):
        find_sources(tmp_path)
    with pytest.raises(DataError, match="is no picture"):
        find_sources(tmp_path / "a.txt")

    def change(at: int, tags: Any) -> None:
        del tags.Rows

    with pytest.raises(DataError, match="hold no images"):
        items_of(save_series(tmp_path / "s", patient(), change))


def test_many_bits_do_not_wrap(tmp_path: Path) -> None:
    def change(at: int, tags: Any) -> None:
        tags.BitsAllocated, tags.BitsStored, tags.HighBit = 32, 32, 31
        tags.PixelData = (np.arange(48, dtype=np.uint32) + np.uint32(2**31 + at)).tobytes()

    found = slices_of(save_series(tmp_path / "s", patient(), change, intercept=0))
    assert found.min() == np.float32(2**31)
