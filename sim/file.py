"""The integer network as one file: what `--target sim` writes (docs/network-file.md).

An .npz archive of plain arrays: `header` holds JSON text as bytes, `constant_<n>` the constants.
Nothing is pickled. The same network gives the same bytes. Reading trusts nothing: sizes, types,
names and the rules of the integer stage are checked before anything runs.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.errors import ModelError, QCompileError, UsageError
from qcompile.graph import Graph, Op, Stage
from qcompile.ops import (
    OPERATORS,
    AveragePool,
    Conv,
    ConvTranspose,
    Div,
    GroupNorm,
    LayerNorm,
    LocalAttention2d,
    MaxPool,
)
from qcompile.sim.codec import decode, decode_fields, encode, encode_fields
from qcompile.types import (
    Array,
    Codebook,
    CodebookKind,
    CodeLimits,
    Element,
    FloatType,
    IntType,
    Quantization,
    Shape,
    TensorType,
)
from qcompile.verifier import verify

FORMAT = "qcompile-network"
VERSION = 2
SUFFIX = ".qnet.npz"
"""The usual end of such a file's name."""

MAX_HEADER_BYTES = 32 << 20
MAX_TOTAL_BYTES = 1 << 30
MAX_MEMBERS = 100_000
MAX_TENSOR_ELEMENTS = 1 << 28
MAX_WINDOW = 1 << 16
"""No kernel, stride, pad or dilation is larger."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_OP_TYPES: Mapping[str, type[Op]] = {op.__name__: op for op in OPERATORS}
_DTYPES = {
    np.dtype(name).str: np.dtype(name)
    for name in (
        "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32",
    )
}  # fmt: skip


def network_bytes(graph: Graph, metadata: Mapping[str, str] | None = None) -> bytes:
    """The file of an integer network, byte for byte the same for the same network.

    Args:
        graph: of the integer stage.
        metadata: free texts to keep with it (version, options, hash of the model).

    Raises:
        UsageError: the graph is not lowered.
    """
    if graph.stage is not Stage.INTEGER:
        raise UsageError(
            f"'{graph.name}' is in the {graph.stage.value} stage; only integer networks are saved"
        )
    members = {name: f"constant_{i:05d}" for i, name in enumerate(sorted(graph.constants))}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "metadata": dict(sorted((metadata or {}).items())),
        "name": graph.name,
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
        "values": {
            name: {**_encode_type(kind), **_member(members, name)}
            for name, kind in sorted(graph.types.items())
        },
        "operators": [
            {
                "kind": op.kind,
                "name": op.name,
                "inputs": list(op.inputs),
                "outputs": list(op.outputs),
                "fields": encode_fields(op, skip=("name", "inputs", "outputs")),
            }
            for op in graph.ops
        ],
    }
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _write(archive, "header", np.frombuffer(text.encode(), dtype=np.uint8))
        for name, member in members.items():
            data = graph.constants[name].astype(graph.types[name].element.storage, copy=False)
            _write(archive, member, data)
    return buffer.getvalue()


def save_network(graph: Graph, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes `network_bytes` to `path`."""
    path.write_bytes(network_bytes(graph, metadata))


def load_network(path: Path | str) -> tuple[Graph, dict[str, str]]:
    """The graph and the metadata of a network file.

    Raises:
        ModelError: the file does not exist, is damaged, too large or breaks a rule.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ModelError(f"network file '{path.name}': is not a regular file; give a .qnet.npz")
    try:
        with zipfile.ZipFile(path) as archive:
            graph, metadata = _read(archive)
    except FileNotFoundError:
        raise ModelError(f"network file '{path.name}': does not exist; check the path") from None
    except QCompileError as error:
        raise ModelError(f"network file '{path.name}': {error}") from None
    except (
        # The ways in which zipfile, zlib, json, numpy and our own checks refuse bad data.
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        OSError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        detail = str(error)[:300] or type(error).__name__
        raise ModelError(
            f"network file '{path.name}': is damaged or no qcompile network ({detail}); "
            f"write it again with --target sim"
        ) from None
    return graph, metadata


def _member(members: Mapping[str, str], name: str) -> dict[str, str]:
    return {"constant": members[name]} if name in members else {}


def _encode_type(kind: TensorType) -> dict[str, Any]:
    result: dict[str, Any] = {"shape": list(kind.shape), "element": str(kind.element)}
    if kind.quantization is not None:
        result["scale"] = encode(kind.quantization.scale)
        if kind.quantization.axis != 1:
            result["axis"] = kind.quantization.axis
    if kind.limits is not None:
        result["limits"] = [list(kind.limits.low), list(kind.limits.high)]
    if kind.codebook is not None:
        book = kind.codebook
        result["codebook"] = [book.kind.value, book.levels, book.name, book.exact]
    return result


def _write(archive: zipfile.ZipFile, name: str, data: Array) -> None:
    content = io.BytesIO()
    little = data.astype(data.dtype.newbyteorder("<"), copy=False)
    np.lib.format.write_array(
        content, np.ascontiguousarray(little).reshape(data.shape), (1, 0), allow_pickle=False
    )
    entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.create_system = 3
    archive.writestr(entry, content.getvalue(), compresslevel=9)


def _read(archive: zipfile.ZipFile) -> tuple[Graph, dict[str, str]]:
    entries = archive.infolist()
    if len(entries) > MAX_MEMBERS or sum(entry.file_size for entry in entries) > MAX_TOTAL_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_TOTAL_BYTES >> 20} MiB")
    sizes = {entry.filename: entry.file_size for entry in entries}
    if sizes.get("header.npy", 0) > MAX_HEADER_BYTES:
        raise ValueError(f"its header has more than {MAX_HEADER_BYTES >> 20} MiB")
    header = json.loads(bytes(_read_array(archive, "header")))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("its header is of another format")
    if header.get("version") != VERSION:
        raise ValueError(f"version {header.get('version')!r}, this program reads {VERSION}")
    metadata = header["metadata"]
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("metadata must be texts")
    values = header["values"]
    types = {name: _decode_type(kind, f"value '{name}'") for name, kind in values.items()}
    constants = {}
    for name, kind in values.items():
        if "constant" in kind:
            member = decode(kind["constant"], str, f"value '{name}'")
            data = _read_array(archive, member)
            if data.dtype != types[name].element.storage or data.shape != types[name].shape:
                raise ValueError(f"constant '{name}' has {data.dtype}{list(data.shape)} data")
            constants[name] = data
    names = tuple[str, ...]
    graph = Graph(
        decode(header["name"], str, "name"),
        Stage.INTEGER,
        decode(header["inputs"], names, "inputs"),
        decode(header["outputs"], names, "outputs"),
        tuple(_decode_op(item) for item in header["operators"]),
        types,
        constants,
    )
    _check_windows(graph)
    verify(graph)
    return graph, metadata


def _read_array(archive: zipfile.ZipFile, name: str) -> Array:
    """One array; memory is only taken for data that is there."""
    with archive.open(f"{name}.npy") as stream:
        content = stream.read(MAX_TOTAL_BYTES + 1)
    source = io.BytesIO(content)
    if np.lib.format.read_magic(source) != (1, 0):
        raise ValueError(f"array '{name}' has an unknown form")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(source, max_header_size=4096)
    if fortran or dtype.str not in _DTYPES:
        raise ValueError(f"array '{name}' has type {dtype}")
    rest = content[source.tell() :]
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"array '{name}' of shape {list(shape)} has {len(rest)} bytes")
    return np.frombuffer(rest, dtype=_DTYPES[dtype.str]).reshape(shape)


def _decode_type(data: Any, where: str) -> TensorType:
    known = {"shape", "element", "scale", "axis", "codebook", "limits", "constant"}
    if not isinstance(data, dict) or set(data) - known:
        raise ValueError(f"{where} has unknown fields")
    shape: Shape = decode(data["shape"], tuple[int, ...], f"{where}.shape")
    if any(size < 1 for size in shape) or math.prod(shape) > MAX_TENSOR_ELEMENTS:
        raise ValueError(f"{where} has shape {list(shape)}")
    quantization = None
    if "scale" in data:
        scale = decode(data["scale"], tuple[float, ...], f"{where}.scale")
        quantization = Quantization(scale, decode(data.get("axis", 1), int, f"{where}.axis"))
    codebook = None
    if "codebook" in data:
        form, place = tuple[str, int, str, bool], f"{where}.codebook"
        kind, levels, name, exact = decode(data["codebook"], form, place)
        codebook = Codebook(CodebookKind(kind), levels, name, exact)
    limits = None
    if "limits" in data:
        ends = decode(data["limits"], tuple[tuple[int, ...], tuple[int, ...]], f"{where}.limits")
        limits = CodeLimits(*ends)
    element = _decode_element(data["element"], where)
    return TensorType(shape, element, quantization, codebook, limits)


def _decode_element(text: Any, where: str) -> Element:
    """`str(element)` backwards: i8, u4, i2n, f32."""
    if text == "f32":
        return FloatType(32)
    if not isinstance(text, str) or text[:1] not in ("i", "u") or len(text) > 4:
        raise ValueError(f"{where} has element type {str(text)[:20]!r}")
    narrow = text.endswith("n")
    return IntType(int(text[1:-1] if narrow else text[1:]), text[0] == "i", narrow)


def _decode_op(data: Any) -> Op:
    if not isinstance(data, dict) or set(data) != {"kind", "name", "inputs", "outputs", "fields"}:
        raise ValueError("an operator has unknown or missing fields")
    kind = data["kind"]
    if kind not in _OP_TYPES:
        raise ValueError(f"unknown operator {str(kind)[:40]!r}")
    name = decode(data["name"], str, "an operator's name")
    where = f"{kind} '{name[:60]}'"
    op = decode_fields(
        _OP_TYPES[kind],
        data["fields"],
        where,
        name=name,
        inputs=decode(data["inputs"], tuple[str, ...], where),
        outputs=decode(data["outputs"], tuple[str, ...], where),
    )
    assert isinstance(op, Op)
    return op


def _check_windows(graph: Graph) -> None:
    """Numbers that would take unbounded memory or time although all shapes are small."""
    for op in graph.ops:
        for field in ("kernel", "strides", "pads_begin", "pads_end", "dilations"):
            least = 0 if field.startswith("pads") else 1
            if field.startswith("pads") and isinstance(op, ConvTranspose):
                least = -MAX_WINDOW
            for size in getattr(op, field, ()):
                if not least <= size <= MAX_WINDOW:
                    raise ValueError(f"{op.label()} has {field} {size}")
        if isinstance(op, Conv | AveragePool | MaxPool | LocalAttention2d):
            padded = math.prod(
                size + begin + end
                for size, begin, end in zip(
                    graph.types[op.inputs[0]].shape[2:], op.pads_begin, op.pads_end, strict=True
                )
            )
            if padded > MAX_TENSOR_ELEMENTS:
                raise ValueError(f"{op.label()} pads to {padded} positions")
        if (
            isinstance(op, AveragePool | MaxPool | LocalAttention2d)
            and math.prod(op.kernel) > MAX_WINDOW
        ):
            raise ValueError(f"{op.label()} has kernel {list(op.kernel)}")
        if isinstance(op, Conv | ConvTranspose | GroupNorm) and op.groups < 1:
            raise ValueError(f"{op.label()} has {op.groups} groups")
        widths = []
        if isinstance(op, Div):
            widths = [op.fraction_bits]
        if isinstance(op, GroupNorm | LayerNorm) and op.widths is not None:
            norm = op.widths
            widths = [norm.root_bits, norm.inverse_bits, norm.drop_bits, norm.fraction_bits]
        if isinstance(op, LocalAttention2d) and op.widths is not None:
            widths = [op.widths.key_bits, op.widths.index_shift]
        if not all(0 <= width <= 64 for width in widths):
            raise ValueError(f"{op.label()} has widths {widths}")
