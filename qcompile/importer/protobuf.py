"""An ONNX file to a protobuf message: size limits and opset, before anything is built."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import onnx

from qcompile.errors import ModelError

MAX_FILE_BYTES = (1 << 31) - 1
"""Protobuf itself allows no more."""

MIN_OPSET = 9


def read_model(path: Path) -> onnx.ModelProto:
    """Parses the file; external data is not touched.

    Raises:
        ModelError: no such file, too large, empty, truncated or not an ONNX model.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"model '{path.name}' is not a regular file; give an .onnx file")
        if status.st_size == 0:
            raise ModelError(f"model '{path.name}' is empty; export it again")
        if status.st_size > MAX_FILE_BYTES:
            raise ModelError(
                f"model '{path.name}' has {status.st_size} bytes, the limit is {MAX_FILE_BYTES}; "
                f"save its weights as external data"
            )
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"model '{path.name}' cannot be read: {reason}") from None
    return parse_model(content, path.name)


def parse_model(content: bytes, name: str) -> onnx.ModelProto:
    """Parses the bytes of an ONNX file called `name`."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # DecodeError, but the protobuf package has no types
        detail = str(error).strip() or type(error).__name__
        raise ModelError(
            f"model '{name}' is not a readable ONNX file ({detail}); it is truncated or of another "
            f"format, export it again"
        ) from None
    if not model.HasField("graph") or (not model.graph.node and not model.graph.output):
        raise ModelError(
            f"model '{name}' holds no graph; it is truncated or of another format, export it again"
        )
    return model


def check_text(graph: onnx.GraphProto) -> None:
    """All names must be text: protobuf hands out bytes where they are not UTF-8.

    Raises:
        ModelError: a name is something else.
    """
    for text in _texts(graph):
        if not isinstance(text, str):
            raise ModelError(f"the name {text!r} is not UTF-8 text; the file is damaged")


def _texts(graph: onnx.GraphProto) -> Iterator[object]:
    yield graph.name
    for value in (*graph.input, *graph.output):
        yield value.name
        for dim in value.type.tensor_type.shape.dim:
            yield dim.dim_param
    for tensor in graph.initializer:
        yield tensor.name
        yield from _tensor_texts(tensor)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            yield from _tensor_texts(attribute.t)


def _tensor_texts(tensor: onnx.TensorProto) -> Iterator[object]:
    for entry in tensor.external_data:
        yield entry.key
        yield entry.value


def opset_version(model: onnx.ModelProto) -> int:
    """The version of the default operator set.

    Raises:
        ModelError: it is not stated, too old, or newer than the installed onnx.
    """
    versions = {item.version for item in model.opset_import if item.domain in ("", "ai.onnx")}
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1:
        raise ModelError(
            f"the model states {len(versions)} versions of the default operator set instead of "
            f"one; export it again with an opset of {MIN_OPSET} to {newest}"
        )
    version = versions.pop()
    if not MIN_OPSET <= version <= newest:
        raise ModelError(
            f"the model has opset {version}, supported are {MIN_OPSET} to {newest}; "
            f"export it again or convert it with onnx.version_converter"
        )
    return int(version)
