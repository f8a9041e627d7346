"""Tiles with a halo give exactly what the whole image gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qcompile.data.tiling import Tiling, choose_tiling, cut_tile, grid_of
from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.ops import ANNOTATIONS, OPERATORS
from qcompile.options import CompileOptions, Effort, Target
from qcompile.pipeline import compile_model
from qcompile.receptive_field import FOLLOWED, receptive_field
from qcompile.sim.executor import Executor
from qcompile.types import Array
from tests.data.networks import (
    Layers,
    Maker,
    aligned_corners,
    gated,
    pooled_unet,
    save,
    strided_linear,
    strided_nearest,
    valid_crops,
)

NETWORKS = (pooled_unet, strided_nearest, strided_linear, valid_crops)


def network(layers: Layers, folder: Path, height: int, width: int) -> Graph:
    return import_model(save(layers, folder / "n.onnx"), {"input": (1, 1, height, width)})


@pytest.mark.parametrize("layers", NETWORKS)
def test_reach_is_what_changing_one_pixel_shows(layers: Layers, tmp_path: Path) -> None:
    field = receptive_field(network(layers, tmp_path, 32, 32))
    graph = network(layers, tmp_path, 64, 64)
    executor = Executor(graph)
    generator = np.random.default_rng(1)
    seen = 0
    for at in range(28, 28 + field.stride[0]):
        for _ in range(4):
            image = generator.normal(0, 1, (1, 1, 64, 64)).astype(np.float32)
            before = executor.run({"input": image})["output"]
            image[0, 0, at] += generator.normal(0, 30, 64).astype(np.float32)
            changed = (executor.run({"input": image})["output"] != before).any(axis=(0, 1, 3))
            seen = max(seen, int(np.abs(np.flatnonzero(changed) - at).max()))
    assert field.whole is None
    assert field.stride == (field.stride[0],) * 2
    assert seen == field.halo[0] == field.halo[1]


@pytest.mark.parametrize(("layers", "stride"), [*zip(NETWORKS, (4, 2, 2, 1), strict=True)])
def test_the_total_stride(layers: Layers, stride: int, tmp_path: Path) -> None:
    assert receptive_field(network(layers, tmp_path, 32, 32)).stride == (stride, stride)


def test_networks_that_no_halo_makes_equal(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ReduceMean 'globalaveragepool.*sees the whole image"):
        choose_tiling(network(gated, tmp_path, 32, 32), "auto")
    graph = network(aligned_corners, tmp_path, 32, 32)
    for halo in ("auto", "8"):
        with pytest.raises(UsageError, match="followed through LinearResize 'resize"):
            choose_tiling(graph, halo)


def test_every_operator_is_followed() -> None:
    assert {*OPERATORS, *ANNOTATIONS} <= set(FOLLOWED)


def test_constants_that_differ_from_place_to_place(tmp_path: Path) -> None:
    def placed(make: Maker) -> str:
        ramp = make.constant(np.arange(32, dtype=np.float32).reshape(1, 1, 1, 32))
        return make.conv(make.node("Add", [make.conv("input", (1, 1)), ramp]), (1, 2))

    with pytest.raises(UsageError, match=r"Add 'add\d' sees the whole image"):
        choose_tiling(network(placed, tmp_path, 32, 32), "auto")


def test_a_halo_by_number_keeps_the_stride(tmp_path: Path) -> None:
    graph = network(gated, tmp_path, 32, 32)
    assert choose_tiling(graph, "5") == Tiling((5, 5), (2, 2), False)
    small = network(strided_nearest, tmp_path, 32, 32)
    reach = max(receptive_field(small).halo)
    assert choose_tiling(small, str(reach)).exact
    assert not choose_tiling(small, str(reach - 1)).exact


def integer_graphs(layers: Layers, folder: Path, size: tuple[int, int]) -> tuple[Graph, Graph]:
    """The same compiled network for 48x32 pixels and for `size`."""
    path = save(layers, folder / "n.onnx")
    images = np.random.default_rng(3).integers(0, 256, (4, 48, 32), dtype=np.uint8)
    np.savez(folder / "c.npz", x=images)
    small = {"input": (1, 1, 48, 32)}
    # Weights go to the nearest code, so that both sizes have the same ones.
    options = CompileOptions(
        target=Target.SIM,
        calib=str(folder / "c.npz"),
        input_shapes=small,
        abits="6",
        effort=Effort.NEAREST,
    )
    first = compile_model(path, options)
    first.write(folder / "first")
    from qcompile.config import resolve

    given = {"config": folder / "first" / "plan.toml", "input_shapes": {"input": (1, 1, *size)}}
    return first.integer_graph, compile_model(path, resolve(given)).integer_graph


def run_tiled(graph: Graph, image: Array, tiling: Tiling) -> Array:
    shape = graph.types["input"].shape
    grid = grid_of(image.shape, shape, tiling)
    executor = Executor(graph)
    name = graph.outputs[0]
    tiles = (cut_tile(image, shape, grid, index) for index in range(len(grid)))
    parts = [executor.run({"input": tile})[name][0] for tile in tiles]
    return np.stack([grid.assemble([part[channel] for part in parts]) for channel in range(2)])


@pytest.mark.parametrize("layers", NETWORKS)
def test_tiles_equal_the_whole_image(layers: Layers, tmp_path: Path) -> None:
    tile, whole = integer_graphs(layers, tmp_path, (96, 108))
    image = np.random.default_rng(5).integers(0, 256, (1, 96, 108), dtype=np.uint8)
    (expected,) = Executor(whole).run({"input": image[None]}).values()
    tiling = choose_tiling(import_model(tmp_path / "n.onnx", {"input": (1, 1, 48, 32)}), "auto")
    np.testing.assert_array_equal(run_tiled(tile, image, tiling), expected[0])
    assert tiling.halo is not None
    less = Tiling((0, 0), tiling.stride)
    assert (run_tiled(tile, image, less) != expected[0]).any()


def test_sizes_that_do_not_fit_are_lengthened_by_their_last_pixels(tmp_path: Path) -> None:
    tile, whole = integer_graphs(pooled_unet, tmp_path, (64, 68))
    image = np.random.default_rng(5).integers(0, 256, (1, 61, 66), dtype=np.uint8)
    longer = np.pad(image, ((0, 0), (0, 3), (0, 2)), mode="edge")
    (expected,) = Executor(whole).run({"input": longer[None]}).values()
    tiling = choose_tiling(import_model(tmp_path / "n.onnx", {"input": (1, 1, 48, 32)}), "auto")
    np.testing.assert_array_equal(run_tiled(tile, image, tiling), expected[0][:, :61, :66])


def test_small_images_are_one_tile() -> None:
    grid = Tiling((3,), (4,)).grid((10,), (16,))
    assert len(grid) == 1
    part = grid.cut(np.arange(10)[None], 0, 0)
    assert part.tolist() == [[[*range(10), *[9] * 6]]]
    assert grid.assemble([np.arange(16)]).tolist() == list(range(10))


@pytest.mark.parametrize(("size", "tile", "halo", "stride"), [
    (100, 32, 6, 4), (97, 32, 6, 4), (33, 32, 15, 2), (512, 256, 107, 16), (65, 64, 0, 64),
])  # fmt: skip
def test_every_pixel_is_kept_once_and_far_from_cuts(
    size: int, tile: int, halo: int, stride: int
) -> None:
    (spans,) = Tiling((halo,), (stride,)).grid((size,), (tile,)).axes
    assert [span.begin for span in spans] == [0, *(span.end for span in spans[:-1])]
    assert spans[-1].end == size
    for span in spans:
        assert span.start % stride == 0
        assert span.begin == 0 or span.begin - span.start >= halo
        assert span.end == size or span.start + tile - span.end >= halo


def test_a_halo_that_leaves_nothing() -> None:
    with pytest.raises(UsageError, match="leave nothing of a tile of 32"):
        Tiling((14,), (8,)).grid((64,), (32,))
