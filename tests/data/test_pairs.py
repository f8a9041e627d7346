"""Image and mask folders: which mask belongs to which image, and what its numbers mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qcompile.data import EvaluationData, ReadingOptions, load_evaluation, load_pairs
from qcompile.data.masks import class_rule, values_in
from qcompile.data.tiling import Tiling
from qcompile.data_options import MaskValues, parse_window
from qcompile.errors import DataError
from qcompile.types import Array, Shape
from tests.data.volumes import axial, blob, patient, save_nifti, save_series

GREY: Shape = (1, 1, 8, 12)
VOLUME: Shape = (1, 1, 8, 6)


def pixels(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


def save(folder: Path, name: str, values: Array) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(values).save(folder / name)


def pairs(folder: Path, **options: object) -> EvaluationData:
    return load_pairs(
        str(folder / "images"),
        str(folder / "masks"),
        {"in": GREY},
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (("b.png", "a.png"), ("a.png", "b.tif")),
        (("a.bmp", "b.jpg"), ("a_mask.png", "b_mask.gif")),
        (("a_0000.png", "b_0000.png"), ("a.png", "b.png", "unused.png")),
        (("a.png", "ab.png"), ("a-seg.png", "ab-seg.png")),
    ],
)
def test_masks_are_found_by_name(
    images: tuple[str, ...], masks: tuple[str, ...], tmp_path: Path
) -> None:
    for name in images:
        save(tmp_path / "images", name, pixels(8, 12))
    for at, name in enumerate(masks):
        save(tmp_path / "masks", name, np.full((8, 12), at, np.uint8))
    data = pairs(tmp_path)
    assert len(data.images) == len(data.labels) == 2
    assert [int(label[0, 0]) for label in data.labels] == [0, 1]
    assert data.images[0]["in"].shape == (1, 8, 12)
    assert not data.floats
    assert data.cases == ()
    assert data.survey.values == {0, 1}


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (("a.png", "b.png"), ("a.png", "c.png"), r"1 of 2 images have no mask .*first 'b'"),
        (("a.png", "a.tif", "b.png"), ("a.png", "b.png"), "has the same name without suffix"),
        (("a.png", "b.png"), ("a.png", "b.jpg"), r"b\.jpg: JPEG changes the values"),
    ],
)
def test_masks_that_are_missing_or_ambiguous(
    images: tuple[str, ...], masks: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    for name in images:
        save(tmp_path / "images", name, pixels(8, 12))
    for name in masks:
        save(tmp_path / "masks", name, pixels(8, 12))
    with pytest.raises(DataError, match=message):
        pairs(tmp_path)


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "images", name, pixels(8, 12))
        save(tmp_path / "masks", name, pixels(8, 12)[:, : 12 if name == "a.png" else 6])
    with pytest.raises(DataError, match=r"mask b\.png: is 8x6 where its image b\.png is 8x12"):
        pairs(tmp_path)


def test_pages_of_a_tiff_are_the_slices_of_a_case(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        pages = [Image.fromarray(np.full((8, 12), at, np.uint8)) for at in range(3)]
        more = pages if folder == "images" else pages[:3]
        more[0].save(tmp_path / folder / "s.tif", save_all=True, append_images=more[1:])
        save(tmp_path / folder, "t.png", np.zeros((8, 12), np.uint8))
    data = pairs(tmp_path)
    assert data.cases == ("s", "s", "s", "t")
    assert [int(image["in"].max()) for image in data.images] == [0, 1, 2, 0]
    Image.fromarray(pixels(8, 12)).save(tmp_path / "masks" / "s.tif")
    with pytest.raises(DataError, match=r"s\.tif: has 3 pages or slices, its mask has 1"):
        pairs(tmp_path)


def test_colour_masks_and_palettes(tmp_path: Path) -> None:
    save(tmp_path / "images", "a.png", pixels(8, 12))
    indices = pixels(8, 12) % 3
    palette = Image.fromarray(indices, mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    (tmp_path / "masks").mkdir()
    palette.save(tmp_path / "masks" / "a.png")
    np.testing.assert_array_equal(pairs(tmp_path).labels[0], indices)
    save(tmp_path / "masks", "a.png", np.stack([indices] * 3, axis=-1))
    np.testing.assert_array_equal(pairs(tmp_path).labels[0], indices)
    Image.fromarray(indices > 0).save(tmp_path / "masks" / "a.png")
    np.testing.assert_array_equal(pairs(tmp_path).labels[0], indices > 0)
    save(tmp_path / "masks", "a.png", pixels(8, 12, 3))
    with pytest.raises(DataError, match="is a mask in colours"):
        pairs(tmp_path)


def test_deep_pictures_through_a_window(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 96).astype(np.uint16).reshape(8, 12)
    save(tmp_path / "images", "a.png", values)
    save(tmp_path / "masks", "a.png", np.zeros((8, 12), np.uint8))
    with pytest.raises(DataError, match=r"uint16.*--window"):
        pairs(tmp_path)
    data = pairs(tmp_path, options=ReadingOptions(parse_window("1000,3000")))
    expected = np.floor((values.clip(1000, 3000) - 1000.0) * 255 / 2000 + 0.5)
    np.testing.assert_array_equal(data.images[0]["in"][0], expected)
    data = pairs(tmp_path, options=ReadingOptions(parse_window("zscore")))
    assert data.floats
    assert abs(float(data.images[0]["in"].mean())) < 1e-6


def test_sizes_that_only_a_halo_can_cut(tmp_path: Path) -> None:
    save(tmp_path / "images", "a.png", pixels(19, 30))
    save(tmp_path / "masks", "a.png", pixels(19, 30) % 2)
    with pytest.raises(DataError, match=r"a\.png: shape .* or choose .*--tile-halo"):
        pairs(tmp_path)
    data = pairs(tmp_path, tiling=Tiling((1, 1), (2, 2)))
    assert data.images[0]["in"].shape == (1, 19, 30)


def test_volumes_and_masks_stored_in_different_ways(tmp_path: Path) -> None:
    save_series(tmp_path / "images" / "p1", patient())
    (tmp_path / "masks").mkdir()
    save_nifti(tmp_path / "masks" / "p1.nii.gz", blob(), "LAS")
    raw = ReadingOptions(parse_window("raw"))
    images, masks = str(tmp_path / "images"), str(tmp_path / "masks")
    data = load_pairs(images, masks, {"in": VOLUME}, raw)
    assert data.cases == ("p1",) * 4
    np.testing.assert_array_equal(np.stack(list(data.labels)), axial(blob()))
    np.testing.assert_array_equal(
        np.stack([image["in"][0] for image in data.images]), axial(patient())
    )


def test_masks_that_lie_elsewhere(tmp_path: Path) -> None:
    import nibabel

    image = save_nifti(tmp_path / "i.nii", patient())
    mask = save_nifti(tmp_path / "m.nii", blob())
    raw = ReadingOptions(parse_window("raw"))
    moved = nibabel.load(mask)
    affine = moved.affine.copy()
    affine[0, 3] += 4
    nibabel.save(nibabel.Nifti1Image(blob(), affine), mask)
    with pytest.raises(DataError, match=r"mask m\.nii: lies up to 4\.0 mm beside its image i\.nii"):
        load_pairs(str(image), str(mask), {"in": VOLUME}, raw)
    nibabel.save(nibabel.Nifti1Image(blob()[:, :7], moved.affine), mask)
    with pytest.raises(DataError, match=r"mask m\.nii: has 4x7x6 .* has 4x8x6"):
        load_pairs(str(image), str(mask), {"in": VOLUME}, raw)
    save_nifti(mask, blob() * np.float32(0.5))
    with pytest.raises(DataError, match="fractional labels"):
        load_pairs(str(image), str(mask), {"in": VOLUME}, raw)


def test_only_the_volume_at_hand_is_in_memory(tmp_path: Path) -> None:
    for folder in ("i", "m"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            save_nifti(tmp_path / folder / f"{name}.nii", patient() if folder == "i" else blob())
    reads = []
    raw = ReadingOptions(parse_window("raw"))
    data = load_pairs(str(tmp_path / "i"), str(tmp_path / "m"), {"in": VOLUME}, raw)
    from qcompile.data import nifti

    found = nifti._read
    with pytest.MonkeyPatch.context() as context:

        def read(path: Path, shape: Shape) -> Array:
            reads.append(path)
            return found(path, shape)

        context.setattr(nifti, "_read", read)
        fresh = load_pairs(str(tmp_path / "i"), str(tmp_path / "m"), {"in": VOLUME}, raw)
        assert [path.parent.name for path in reads] == ["m", "m"]  # the survey of masks
        reads.clear()
        for image in fresh.images:
            assert image["in"].shape == (1, 8, 6)
        assert [path.name for path in reads] == ["a.nii", "b.nii"]
        _ = fresh.images[0], fresh.images[5], fresh.labels[0], fresh.labels[6]
        # The first volume was let go when the second one was read.
        assert [path.parent.name for path in reads[2:]] == ["i", "i", "m", "m"]
    assert len(data.images) == 8


def test_cases_of_an_npz(tmp_path: Path) -> None:
    arrays = {"val_x": pixels(4, 8, 12), "val_y": pixels(4, 8, 12) % 2}
    path = tmp_path / "a.npz"
    np.savez(path, val_case=np.array(["p2", "p2", "p1", "p2"]), **arrays)  # type: ignore[arg-type]
    assert load_evaluation(str(path), {"in": GREY}, None).cases == ("p2", "p2", "p1", "p2")
    np.savez(path, who=np.array([3, 3, 4, 4]), **arrays)  # type: ignore[arg-type]
    data = load_evaluation(str(path), {"in": GREY}, ("val_x", "val_y", "who"))
    assert data.cases == ("3", "3", "4", "4")
    np.savez(path, val_case=np.array(["p2"]), **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"val_case: has shape \[1\]; give one case for each"):
        load_evaluation(str(path), {"in": GREY}, None)


def test_data_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    import pickle

    np.savez(tmp_path / "a.npz", x=pixels(2, 8, 12), y=pixels(2, 8, 12) % 2)
    data = load_evaluation(str(tmp_path / "a.npz"), {"in": GREY}, None)
    sent = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(sent.images[1]["in"], data.images[1]["in"])
    np.testing.assert_array_equal(sent.labels[1], data.labels[1])
    assert sent.survey == data.survey


def test_what_numbers_in_masks_mean() -> None:
    mask = np.array([0, 1, 255])
    both = np.array([0, 255])
    assert class_rule({0, 255}, MaskValues.AUTO, 2)(both).tolist() == [0, 1]
    assert class_rule({0, 1, 255}, MaskValues.BINARY, 2)(mask).tolist() == [0, 1, 1]
    assert class_rule({0, 7, 300}, MaskValues.INSTANCES, 2)(np.array([7, 0])).tolist() == [1, 0]
    assert class_rule({0, 2}, MaskValues.AUTO, 3)(np.array([2])).tolist() == [2]
    for values, meaning, classes in (
        ({0, 255}, MaskValues.INDEX, 2),
        ({0, 1, 255}, MaskValues.AUTO, 2),
        ({0, 128, 255}, MaskValues.AUTO, 3),
    ):
        with pytest.raises(DataError, match=r"class 255 \(values 0, .*--mask-values"):
            class_rule(values, meaning, classes)
    assert values_in(np.array([3, 3, 1], np.uint8)) == values_in(np.array([3, 1])) == {1, 3}
