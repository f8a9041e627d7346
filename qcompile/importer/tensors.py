"""ONNX tensors to numpy arrays, every size checked before anything is read or allocated."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from onnx import TensorProto

from qcompile.errors import ModelError
from qcompile.types import Array

MAX_WEIGHT_BYTES = 1 << 30
"""Largest sum of all tensor data that is read from external files, and largest single tensor."""

DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "<f4",
    TensorProto.FLOAT16: "<f2",
    TensorProto.DOUBLE: "<f8",
    TensorProto.INT8: "<i1",
    TensorProto.INT16: "<i2",
    TensorProto.INT32: "<i4",
    TensorProto.INT64: "<i8",
    TensorProto.UINT8: "<u1",
    TensorProto.UINT16: "<u2",
    TensorProto.UINT32: "<u4",
    TensorProto.UINT64: "<u8",
    TensorProto.BOOL: "?",
    TensorProto.BFLOAT16: "<u2",
}

FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
}
"""Where typed data lies if it is not raw; everything else is in `int32_data`."""


def element_name(data_type: int) -> str:
    """The ONNX name of an element type, or its number if this onnx does not know it."""
    if data_type in TensorProto.DataType.values():
        return str(TensorProto.DataType.Name(data_type)).lower()
    return str(data_type)


class TensorReader:
    """Reads the tensors of one model; external data only from inside the model's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._external_bytes = 0

    def read(self, tensor: onnx.TensorProto, what: str) -> Array:
        """The data of `tensor`.

        Args:
            tensor: float, integer or bool elements.
            what: whose tensor it is, for messages.

        Raises:
            ModelError: unknown element type, impossible shape, wrong amount of data, or external
                data that is missing, too large or outside the model's folder.
        """
        dtype = DTYPES.get(tensor.data_type)
        if dtype is None:
            raise ModelError(
                f"{what}: elements of type {element_name(tensor.data_type)} cannot be read; "
                f"export the model with float32 weights"
            )
        shape = tuple(tensor.dims)
        if len(shape) > 32 or any(size < 0 for size in shape):
            raise ModelError(f"{what}: impossible shape {list(shape)[:40]}; export the model again")
        count = math.prod(shape)
        size = count * np.dtype(dtype).itemsize
        if size > MAX_WEIGHT_BYTES:
            raise ModelError(
                f"{what}: {size} bytes are more than the limit of {MAX_WEIGHT_BYTES} bytes a tensor"
            )
        if tensor.HasField("segment"):
            raise ModelError(f"{what}: segmented tensors are not supported; export the model again")
        if tensor.data_location == TensorProto.EXTERNAL:
            flat = np.frombuffer(self._external(tensor, what, size), dtype=dtype)
        elif tensor.HasField("raw_data"):
            if len(tensor.raw_data) != size:
                raise ModelError(
                    f"{what}: shape {list(shape)} needs {size} bytes but the file has "
                    f"{len(tensor.raw_data)}; the file is damaged"
                )
            flat = np.frombuffer(tensor.raw_data, dtype=dtype)
        else:
            flat = self._typed(tensor, what, count, dtype)
        if tensor.data_type == TensorProto.BFLOAT16:
            flat = (flat.astype("<u4") << 16).view("<f4")
        return flat.reshape(shape)

    def _typed(self, tensor: onnx.TensorProto, what: str, count: int, dtype: str) -> Array:
        values = getattr(tensor, FIELDS.get(tensor.data_type, "int32_data"))
        if len(values) != count:
            raise ModelError(
                f"{what}: shape {list(tensor.dims)} needs {count} elements but the file has "
                f"{len(values)}; the file is damaged"
            )
        if tensor.data_type == TensorProto.FLOAT16:  # bit patterns in int32_data
            return np.asarray(values, dtype="<i4").astype("<u2").view("<f2")
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.DOUBLE):
            return np.asarray(values, dtype=dtype)
        return np.asarray(values).astype(dtype)

    def _external(self, tensor: onnx.TensorProto, what: str, size: int) -> bytes:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        try:
            offset = int(entries.get("offset", "0"))
            length = int(entries.get("length", str(size)))
        except ValueError:
            raise ModelError(
                f"{what}: offset or length of its external data is no number"
            ) from None
        if offset < 0 or length != size:
            raise ModelError(
                f"{what}: external data of {length} bytes at offset {offset} does not fit its "
                f"shape, which needs {size} bytes; export the model again"
            )
        self._external_bytes += size
        if self._external_bytes > MAX_WEIGHT_BYTES:
            raise ModelError(
                f"{what}: the external data exceeds the limit of {MAX_WEIGHT_BYTES} bytes a model"
            )
        path = self._inside_folder(location, what)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise ModelError(f"{what}: external data '{location}' is not a regular file")
                if offset + size > status.st_size:
                    raise ModelError(
                        f"{what}: external data '{location}' has {status.st_size} bytes, but "
                        f"{offset + size} are needed; copy the complete file beside the model"
                    )
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ModelError(
                f"{what}: external data '{location}' cannot be read ({reason}); "
                f"put the file beside the model"
            ) from None
        if len(data) != size:
            raise ModelError(f"{what}: external data '{location}' ended early")
        return data

    def _inside_folder(self, location: str, what: str) -> Path:
        """The file of a relative `location` that does not leave the folder, also not by links."""
        pure = (PurePosixPath(location), PureWindowsPath(location))
        outside = (
            not location
            or "\0" in location
            or any(path.is_absolute() or path.drive or ".." in path.parts for path in pure)
            or location.startswith(("/", "\\"))
        )
        folder = self._folder.resolve()
        path = folder
        if not outside:
            try:
                path = (folder / location).resolve()
            except (OSError, RuntimeError):  # a circle of links
                outside = True
        if outside or not path.is_relative_to(folder) or path == folder:
            raise ModelError(
                f"{what}: external data '{location}' lies outside the model's folder and is not "
                f"read; put the file beside the model and save it with a relative location"
            )
        if path.exists() and not path.is_file():  # never open a pipe or a device
            raise ModelError(f"{what}: external data '{location}' is not a regular file")
        return path
