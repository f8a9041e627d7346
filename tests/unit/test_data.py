from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qcompile.boundary import InputKind, InputSpec, channel_axis
from qcompile.data import (
    calibration_feeds,
    generated_feeds,
    load_evaluation,
    shape_from_images,
)
from qcompile.data.calibration import evenly
from qcompile.data.fitting import fit_images
from qcompile.data.tiling import Tiling, cut_tile, grid_of
from qcompile.errors import DataError
from qcompile.feeds import choose_input_kind, float_feed, integer_feed
from qcompile.graph import Graph, Stage
from qcompile.options import InputChoice
from qcompile.types import FLOAT32, UINT8, Array, Shape, TensorType

GREY: Shape = (1, 1, 8, 12)
COLOUR: Shape = (1, 3, 8, 12)
LAST: Shape = (1, 8, 12, 3)


def pixels(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, **arrays: Array) -> str:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


@pytest.mark.parametrize(
    ("given", "network", "expected"),
    [
        ((5, 8, 12), GREY, (5, 1, 8, 12)),
        ((5, 8, 12, 1), GREY, (5, 1, 8, 12)),
        ((5, 1, 8, 12), GREY, (5, 1, 8, 12)),
        ((5, 16, 24), GREY, (5, 1, 16, 24)),
        ((5, 8, 12, 3), COLOUR, (5, 3, 8, 12)),
        ((5, 3, 8, 12), COLOUR, (5, 3, 8, 12)),
        ((5, 3, 8, 12), LAST, (5, 8, 12, 3)),
        ((5, 16, 12, 3), LAST, (5, 16, 12, 3)),
        ((5, 3, 3, 3), (1, 3, 3, 3), (5, 3, 3, 3)),
        ((5, 7), (1, 7), (5, 7)),
        ((2, 4, 4, 4), (1, 1, 4, 4, 4), (2, 1, 4, 4, 4)),
    ],
)
def test_axis_orders(given: Shape, network: Shape, expected: Shape) -> None:
    assert fit_images(pixels(*given), network, "x").shape == expected


def test_channels_last_really_move() -> None:
    images = pixels(2, 8, 12, 3)
    np.testing.assert_array_equal(fit_images(images, COLOUR, "x")[1, 2], images[1, :, :, 2])


@pytest.mark.parametrize(
    ("given", "network"),
    [
        ((5, 9, 12), GREY),
        ((5, 8, 12), COLOUR),
        ((5, 8, 12, 4), COLOUR),
        ((8, 12), GREY),
        ((0, 8, 12), GREY),
        ((5, 4, 6), GREY),
    ],
)
def test_shapes_that_do_not_fit(given: Shape, network: Shape) -> None:
    with pytest.raises(DataError, match="x: "):
        fit_images(pixels(*given), network, "x")


def test_an_array_that_fits_both_orders_is_refused() -> None:
    with pytest.raises(DataError, match="channels first and with channels last"):
        fit_images(pixels(2, 3, 6, 3), (1, 3, 3, 3), "x")


def test_other_elements_are_refused() -> None:
    with pytest.raises(DataError, match="int16"):
        fit_images(pixels(2, 8, 12).astype(np.int16), GREY, "x")


def test_channel_axis() -> None:
    assert [channel_axis(shape) for shape in (GREY, COLOUR, LAST, (1, 9), (1, 4, 4, 4))] == [
        1,
        1,
        3,
        1,
        1,
    ]


def test_tiles_are_put_back_in_place() -> None:
    image = pixels(1, 16, 36)
    grid = grid_of(image.shape, GREY, Tiling())
    parts = [cut_tile(image, GREY, grid, index) for index in range(len(grid))]
    assert len(parts) == 6
    assert parts[0].shape == GREY
    np.testing.assert_array_equal(parts[4][0, 0], image[0, 8:, 12:24])
    np.testing.assert_array_equal(grid.assemble([part[0, 0] for part in parts]), image[0])


def test_choice_of_images_is_even_and_stable() -> None:
    assert evenly(list(range(3)), 5) == [0, 1, 2]
    assert evenly(list(range(100)), 4) == [12, 37, 62, 87]


def test_calibration_from_npz(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", other=pixels(1, 2), train_x=pixels(9, 16, 12))
    feeds = calibration_feeds(path, {"in": GREY}, 5)
    assert len(feeds) == 5
    assert all(feed["in"].shape == GREY and feed["in"].dtype == np.uint8 for feed in feeds)
    with pytest.raises(DataError, match="does not fit"):
        calibration_feeds(path + ":other", {"in": GREY}, 5)
    with pytest.raises(DataError, match="no array 'none'"):
        calibration_feeds(path + ":none", {"in": GREY}, 5)


def test_calibration_from_npy_and_by_input_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", pixels(3, 8, 12).astype(np.float64) / 255)
    (feed, *_) = calibration_feeds(str(tmp_path / "a.npy"), {"in": GREY}, 8)
    assert feed["in"].dtype == np.float32
    path = save(tmp_path / "two.npz", a=pixels(3, 8, 12), b=pixels(3, 8, 12, 3))
    feeds = calibration_feeds(path, {"a": GREY, "b": COLOUR}, 8)
    assert len(feeds) == 3
    assert feeds[0]["b"].shape == COLOUR
    with pytest.raises(DataError, match="no array for input 'c'"):
        calibration_feeds(path, {"a": GREY, "c": COLOUR}, 8)


def test_calibration_from_a_folder(tmp_path: Path) -> None:
    Image.fromarray(pixels(8, 12)).save(tmp_path / "b.png")
    Image.fromarray(pixels(8, 24, 3)).save(tmp_path / "a.png")
    pages = [Image.fromarray(pixels(8, 12)) for _ in range(3)]
    pages[0].save(tmp_path / "c.tif", save_all=True, append_images=pages[1:])
    (tmp_path / "notes.txt").write_text("no image")
    feeds = calibration_feeds(str(tmp_path), {"in": GREY}, 99)
    assert len(feeds) == 2 + 1 + 3
    assert len(calibration_feeds(str(tmp_path), {"in": COLOUR}, 99)) == 6


def test_damaged_and_deep_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    with pytest.raises(DataError, match=r"a\.png"):
        calibration_feeds(str(tmp_path), {"in": GREY}, 9)
    Image.fromarray(pixels(8, 12).astype(np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="uint16; say how they become pixels with --window"):
        calibration_feeds(str(tmp_path), {"in": GREY}, 9)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no"):
        calibration_feeds(str(tmp_path), {"in": GREY}, 9)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    bad = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "bad.npz", x=bad)
    np.save(tmp_path / "bad.npy", bad)
    for name in ("bad.npz", "bad.npy"):
        with pytest.raises(DataError, match="never pickled objects"):
            calibration_feeds(str(tmp_path / name), {"in": GREY}, 9)


def hostile_header(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("shape", ["(1000000, 1000000)", "(-1, 4)", "(3, 8, 12)"])
def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path, shape: str) -> None:
    (tmp_path / "a.npy").write_bytes(hostile_header(shape) + b"abc")
    with pytest.raises(DataError, match=r"a\.npy"):
        calibration_feeds(str(tmp_path / "a.npy"), {"in": GREY}, 9)


def test_large_arrays_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompile.data.arrays.PIECE_BYTES", 7)
    images = np.asfortranarray(pixels(3, 8, 12))
    np.savez_compressed(tmp_path / "a.npz", x=images)
    (feed, *_) = calibration_feeds(str(tmp_path / "a.npz"), {"in": GREY}, 9)
    assert np.array_equal(feed["in"][0, 0], images[0])


def test_devices_and_pipes_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    for name in (str(tmp_path / "pipe.npy"), "/dev/zero"):
        with pytest.raises(DataError, match="not a regular file"):
            calibration_feeds(name, {"in": GREY}, 9)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("hello")
    with pytest.raises(DataError, match="neither"):
        calibration_feeds(str(tmp_path / "a.npz"), {"in": GREY}, 9)
    with pytest.raises(DataError, match="cannot be opened"):
        calibration_feeds(str(tmp_path / "none.npz"), {"in": GREY}, 9)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.txt", "hello")
    (tmp_path / "a.npz").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="holds no arrays"):
        calibration_feeds(str(tmp_path / "a.npz"), {"in": GREY}, 9)


def test_nan_is_refused(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 12), np.float32)
    images[1, 2, 3] = np.nan
    with pytest.raises(DataError, match="NaN"):
        calibration_feeds(save(tmp_path / "a.npz", x=images), {"in": GREY}, 9)


def test_evaluation_data(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.npz", val_x=pixels(4, 16, 12), val_y=pixels(4, 1, 16, 12) > 128, q=pixels(3)
    )
    data = load_evaluation(path, {"in": GREY}, None)
    assert data.images[0]["in"].shape == (1, 16, 12)
    assert data.labels[0].shape == (16, 12)
    with pytest.raises(DataError, match="pair up"):
        load_evaluation(path, {"in": GREY}, ("val_x", "q"))
    with pytest.raises(DataError, match="--data-keys"):
        load_evaluation(save(tmp_path / "b.npz", a=pixels(4, 8, 12)), {"in": GREY}, None)


def test_fractional_and_negative_labels(tmp_path: Path) -> None:
    images = pixels(2, 8, 12)
    for labels in (np.full((2, 8, 12), 0.5), np.full((2, 8, 12), -1)):
        path = save(tmp_path / "a.npz", x=images, y=labels)
        with pytest.raises(DataError, match="class indices"):
            load_evaluation(path, {"in": GREY}, None)


def test_pixels_become_floats() -> None:
    data = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    plain = float_feed({"in": data}, {"in": InputSpec()})["in"]
    np.testing.assert_array_equal(plain, data.astype(np.float32) / np.float32(255))
    spec = InputSpec(mean=(0.5, 0.25, 0.125), std=(0.5, 1.0, 2.0))
    for axis in (1, 3):
        colour = np.stack([data[:, 0]] * 3, axis=axis)
        found = float_feed({"in": colour}, {"in": spec})["in"]
        for channel in range(3):
            expected = (data[0, 0] / 255 - spec.mean[channel]) / spec.std[channel]
            np.testing.assert_allclose(found.take(channel, axis)[0], expected, rtol=1e-6)
    with pytest.raises(DataError, match="3 values"):
        float_feed({"in": data}, {"in": spec})


def graph_with(element: object) -> Graph:
    kind = TensorType(GREY, element)  # type: ignore[arg-type]
    return Graph("g", Stage.INTEGER, ("in",), ("in",), (), {"in": kind}, {})


def test_compiled_networks_get_pixels_or_floats() -> None:
    specs = {"in": InputSpec(InputKind.UINT8)}
    raw = {"in": pixels(*GREY)}
    assert integer_feed(raw, graph_with(UINT8), specs)["in"] is raw["in"]
    assert integer_feed(raw, graph_with(FLOAT32), specs)["in"].dtype == np.float32
    with pytest.raises(DataError, match="--input-kind float32"):
        integer_feed({"in": np.zeros(GREY, np.float32)}, graph_with(UINT8), specs)


def test_input_kind_follows_the_data() -> None:
    assert choose_input_kind(InputChoice.AUTO, False, "x") is InputKind.UINT8
    assert choose_input_kind(InputChoice.AUTO, True, "x") is InputKind.FLOAT32
    assert choose_input_kind(InputChoice.FLOAT32, False, "x") is InputKind.FLOAT32
    with pytest.raises(DataError, match="uint8"):
        choose_input_kind(InputChoice.UINT8, True, "x")


def test_generated_inputs_repeat() -> None:
    shapes = {"a": (1, 3, 20, 33), "b": (1, 5)}
    first, second = generated_feeds(shapes, 3), generated_feeds(shapes, 3)
    for one, two in zip(first, second, strict=True):
        for name, shape in shapes.items():
            assert one[name].shape == shape
            np.testing.assert_array_equal(one[name], two[name])
    assert not np.array_equal(generated_feeds(shapes, 4)[0]["a"], first[0]["a"])


def test_dynamic_axes_get_their_size_from_images() -> None:
    assert shape_from_images(pixels(5, 8, 12), (None, 1, None, None)) == (1, 1, 8, 12)
    assert shape_from_images(pixels(5, 8, 12, 3), (1, 3, None, None)) == (1, 3, 8, 12)
    assert shape_from_images(pixels(5, 8, 12, 3), (None, None, None, 3)) == (1, 8, 12, 3)
    assert shape_from_images(pixels(5, 8, 12), (None, None, None, None)) == (1, 1, 8, 12)
    assert shape_from_images(pixels(5, 8, 12), (1, 4, None, None)) is None


@pytest.mark.parametrize("name", ["a.npz", "b.npz", "a.npy", "images/a.png"])
def test_damaged_files_are_data_errors_and_nothing_else(name: str, tmp_path: Path) -> None:
    images = pixels(3, 8, 12)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name == "a.npz":
        np.savez_compressed(path, x=images)
    elif name == "b.npz":
        np.savez(path, x=images)
    elif name == "a.npy":
        np.save(path, images)
    else:
        Image.fromarray(images[0]).save(path)
    whole = path.read_bytes()
    source = str(path if path.parent == tmp_path else path.parent)
    generator = np.random.default_rng(5)
    failures = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for at in generator.integers(0, len(whole), generator.integers(1, 4)):
            damaged[at] = generator.integers(0, 256)
        path.write_bytes(damaged[: generator.integers(1, 2 * len(whole))])
        try:
            calibration_feeds(source, {"in": GREY}, 4)
        except DataError:
            failures += 1
    assert failures > 50
