"""The network file: round trips, equal bytes, and files that mean harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qcompile
from qcompile.errors import DataError, ModelError, UsageError
from qcompile.graph import Graph, Stage
from qcompile.ops import Conv, Dequantize, Lookup, Quantize
from qcompile.sim.executor import Executor
from qcompile.sim.file import load_network, network_bytes, save_network
from qcompile.types import (
    FLOAT32,
    UINT8,
    Array,
    Codebook,
    CodebookKind,
    IntType,
    Quantization,
    TensorType,
)
from tests.op_cases import CASES, OpCase, cases_of
from tests.op_cases.build import Style, sum_case


def complete(case: OpCase) -> Graph:
    """The case behind a boundary operator for each input, as the integer stage demands."""
    graph = case.graph
    types = dict(graph.types)
    constants = dict(graph.constants)
    front = []
    inputs = []
    for name in graph.inputs:
        kind = graph.types[name]
        if kind.is_float or (kind.element == UINT8 and kind.quantization is None):
            inputs.append(name)
            continue
        raw = f"raw_{name}"
        types[raw] = TensorType(kind.shape, FLOAT32)
        front.append(
            Quantize(
                name=f"quantize_{name}",
                inputs=(raw,),
                outputs=(name,),
                inverse=(1.0,),
                offset=(0.5,),
                low=kind.integer.low,
                high=kind.integer.high,
            )
        )
        inputs.append(raw)
    return Graph(
        graph.name,
        Stage.INTEGER,
        tuple(inputs),
        graph.outputs,
        (*front, *graph.ops),
        types,
        constants,
    )


def feeds_of(graph: Graph, case: OpCase) -> dict[str, Array]:
    return {
        name: case.feeds[name.removeprefix("raw_")].astype(graph.types[name].element.storage)
        for name in graph.inputs
    }


@pytest.mark.parametrize("stem", CASES)
def test_round_trip(stem: str, tmp_path: Path) -> None:
    for case in cases_of(stem)[::3]:
        graph = complete(case)
        path = tmp_path / "network.qnet.npz"
        save_network(graph, path, {"version": "1", "note": 'quote " and \n line'})
        loaded, metadata = load_network(path)
        assert metadata == {"version": "1", "note": 'quote " and \n line'}
        assert loaded.ops == graph.ops
        assert loaded.types == graph.types
        assert (loaded.name, loaded.inputs, loaded.outputs) == (
            graph.name,
            graph.inputs,
            graph.outputs,
        )
        network = qcompile.load(path)
        feeds = feeds_of(graph, case)
        expected = Executor(graph).run(feeds, "all")
        actual = network.run(feeds, taps="all")
        assert expected.keys() == actual.keys()
        for value, data in expected.items():
            np.testing.assert_array_equal(actual[value], data)
        for value in case.graph.outputs:
            np.testing.assert_array_equal(
                actual[value], Executor(case.graph).run(case.feeds)[value]
            )


def small_network() -> Graph:
    """uint8 pixels [1, 1, 5, 6] through a table, a 3x3 convolution and back to floats."""
    rng = np.random.default_rng(5)
    w = TensorType(
        (2, 1, 3, 3),
        IntType(4, narrow=True),
        Quantization((0.1, 0.2), 0),
        Codebook(CodebookKind.UNIFORM, 15),
    )
    codes = TensorType((1, 1, 5, 6), IntType(6, signed=False), Quantization.per_tensor(0.02))
    weights = rng.integers(-7, 8, w.shape).astype(np.int8)
    conv = Conv(
        name="conv",
        inputs=("codes", "w"),
        outputs=("y",),
        strides=(1, 1),
        pads_begin=(1, 1),
        pads_end=(1, 1),
        dilations=(1, 1),
    )
    middle = sum_case(
        rng, "conv", conv, {"codes": codes, "w": w}, {"w": weights}, Style.CHANNEL
    ).graph
    y = middle.types["y"]
    assert y.quantization is not None
    scale = y.quantization.scale[0]
    table = TensorType((256,), codes.integer)
    return Graph(
        "small",
        Stage.INTEGER,
        ("pixels",),
        ("logits",),
        (
            Lookup(name="input", inputs=("pixels", "table"), outputs=("codes",)),
            *middle.ops,
            Dequantize(name="output", inputs=("y",), outputs=("logits",), scale=scale),
        ),
        {
            **middle.types,
            "pixels": TensorType((1, 1, 5, 6), UINT8),
            "table": table,
            "logits": TensorType(y.shape, FLOAT32),
        },
        {"w": weights, "table": (np.arange(256) // 4).astype(np.uint8)},
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "small.qnet.npz"
    save_network(small_network(), path)
    return path


def test_the_bytes_are_reproducible(saved: Path) -> None:
    assert saved.read_bytes() == network_bytes(small_network())
    graph, metadata = load_network(saved)
    assert network_bytes(graph, metadata) == saved.read_bytes()


def test_numpy_reads_it_without_pickle(saved: Path) -> None:
    with np.load(saved, allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
        weights = archive[header["values"]["w"]["constant"]]
    assert header["format"] == "qcompile-network"
    np.testing.assert_array_equal(weights, small_network().constants["w"])


def test_run_takes_images_as_they_come(saved: Path) -> None:
    network = qcompile.load(saved)
    image = np.random.default_rng(0).integers(0, 256, (5, 6), dtype=np.uint8)
    expected = network.run({"pixels": image[None, None]})["logits"]
    assert expected.dtype == np.float32
    for form in (image, image[None], image.astype(np.int64)):
        np.testing.assert_array_equal(network.run(form)["logits"], expected)
    taps = network.run(image, taps=["codes", "y"])
    assert set(taps) == {"codes", "y", "logits"}
    assert taps["codes"].max() <= 63
    assert set(network.inputs) == {"pixels"}
    assert network.outputs["logits"].shape == (1, 2, 5, 6)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((5, 6), np.float32), "raw pixels"),
        (np.full((5, 6), 256), "beyond 0..255"),
        (np.zeros((5, 7), np.uint8), "shape"),
        ({"other": np.zeros((5, 6), np.uint8)}, "missing"),
    ],
)
def test_wrong_inputs_are_explained(saved: Path, x: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        qcompile.load(saved).run(x)


def test_only_integer_networks_are_saved(tmp_path: Path) -> None:
    graph = Graph("g", Stage.FLOAT, (), (), (), {}, {})
    with pytest.raises(UsageError, match="float stage"):
        save_network(graph, tmp_path / "x.npz")


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def array_bytes(data: Array, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, data, (1, 0), allow_pickle=allow_pickle)
    return buffer.getvalue()


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        qcompile.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 800
    return message


def edit_header(path: Path, edit: Callable[[Any], None]) -> None:
    members = members_of(path)
    with np.load(path, allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
    edit(header)
    text = json.dumps(header).encode()
    members["header.npy"] = array_bytes(np.frombuffer(text, dtype=np.uint8))
    rewrite(path, members)


def set_path(*keys: str | int, value: Any) -> Callable[[Any], None]:
    def edit(header: Any) -> None:
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    return edit


CONV = ("operators", 1, "fields")
HOSTILE: dict[str, Callable[[Any], None]] = {
    "unknown operator": set_path("operators", 0, "kind", value="__import__"),
    "operator of wrong kind": set_path("operators", 0, "kind", value=["Conv"]),
    "unknown field": set_path(*CONV, "evil", value=1),
    "field of wrong type": set_path(*CONV, "strides", value=[1, True]),
    "field is a text": set_path(*CONV, "strides", value="11"),
    "stride zero": set_path(*CONV, "strides", value=[0, 1]),
    "huge pads": set_path(*CONV, "pads_begin", value=[10**12, 1]),
    "no groups": set_path(*CONV, "groups", value=0),
    "huge dilation": set_path(*CONV, "dilations", value=[2**70, 1]),
    "accumulator too narrow": set_path(*CONV, "accumulator", value={"type": "IntType", "bits": 3}),
    "accumulator too wide": set_path(
        *CONV, "accumulator", value={"type": "IntType", "bits": 10**9}
    ),
    "epilogue of wrong class": set_path(*CONV, "epilogue", value={"type": "Popen"}),
    "epilogue vectors too short": set_path(*CONV, "epilogue", "biases", value=[]),
    "huge multiplier": set_path(*CONV, "epilogue", "multipliers", value=[10**40]),
    "name is a number": set_path("name", value=7),
    "unknown value read": set_path("operators", 0, "inputs", value=["nothing", "table"]),
    "cycle": set_path("operators", 0, "inputs", value=["logits", "table"]),
    "two producers": set_path("operators", 0, "outputs", value=["y"]),
    "unknown output": set_path("outputs", value=["evil"]),
    "huge dims": set_path("values", "pixels", "shape", value=[1, 1, 2**40, 2**40]),
    "negative dims": set_path("values", "pixels", "shape", value=[1, 1, -5, -6]),
    "wrong shape": set_path("values", "y", "shape", value=[1, 2, 5, 5]),
    "unknown element": set_path("values", "y", "element", value="object"),
    "element with many bits": set_path("values", "y", "element", value="i999"),
    "constant of another type": set_path("values", "w", "element", value="i16"),
    "constant outside the archive": set_path("values", "w", "constant", value="../../etc/passwd"),
    "limits beyond the element": set_path("values", "y", "limits", value=[[-999], [999]]),
    "limits of other channels": set_path("values", "y", "limits", value=[[0] * 3, [1] * 3]),
    "limits that nothing keeps": set_path("values", "y", "limits", value=[[0], [0]]),
    "limits of pixels": set_path("values", "pixels", "limits", value=[[0], [9]]),
    "limits without end": set_path("values", "y", "limits", value=[[0]]),
    "empty limits": set_path("values", "y", "limits", value=[[1], [0]]),
    "scale zero": set_path("values", "y", "scale", value=[0.0]),
    "scale nan": set_path("values", "y", "scale", value=["nan"]),
    "another version": set_path("version", value=99),
    "another format": set_path("format", value="zip"),
    "metadata is no text": set_path("metadata", value={"a": [1]}),
    "operators are no list": set_path("operators", value=3),
    "values are no object": set_path("values", value=[]),
    "deep fractions": set_path(*CONV, "activation", value={"type": "Activation", "low": "1e999"}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_headers_are_refused(saved: Path, what: str) -> None:
    edit_header(saved, HOSTILE[what])
    refused(saved)


def test_damaged_files_are_refused(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    refused(tmp_path / "absent.npz")
    refused(tmp_path)
    for length in (0, 10, len(content) // 2, len(content) - 5):
        saved.write_bytes(content[:length])
        refused(saved)
    saved.write_bytes(b"not a zip at all" * 10)
    refused(saved)


def test_flipped_bytes_never_crash(saved: Path) -> None:
    content = saved.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(content)
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
        saved.write_bytes(bytes(changed))
        try:
            network = qcompile.load(saved)
        except ModelError:
            continue
        # The flip hit a byte that means nothing, such as a time stamp.
        network.run(np.zeros((5, 6), np.uint8))


def test_pickled_arrays_are_refused(saved: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
            raise AssertionError

    members = members_of(saved)
    evil = np.empty((2, 1, 3, 3), dtype=object)
    evil[:] = 1
    members["constant_00001.npy"] = array_bytes(evil, allow_pickle=True)
    rewrite(saved, members)
    refused(saved)
    members["constant_00001.npy"] = pickle.dumps([1])
    rewrite(saved, members)
    refused(saved)


def test_arrays_that_claim_more_than_they_hold_are_refused(saved: Path) -> None:
    members = members_of(saved)
    name = "constant_00001.npy"
    members[name] = members[name].replace(b"(2, 1, 3, 3)", b"(2, 1, 3, 9)")
    rewrite(saved, members)
    refused(saved)


def test_zip_bombs_are_refused(saved: Path) -> None:
    members = members_of(saved)
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        with archive.open("bomb.npy", "w", force_zip64=True) as stream:
            for _ in range(33):
                stream.write(bytes(1 << 25))
    assert saved.stat().st_size < 2 << 20
    assert "MiB" in refused(saved)


def test_a_header_that_nests_deeply_is_refused(saved: Path) -> None:
    members = members_of(saved)
    text = b"[" * 200_000
    members["header.npy"] = array_bytes(np.frombuffer(text, dtype=np.uint8))
    rewrite(saved, members)
    refused(saved)


def test_folders_devices_and_pipes_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path, tmp_path / "pipe.npz", "/dev/zero"):
        with pytest.raises(ModelError, match="not a regular file"):
            load_network(path)
