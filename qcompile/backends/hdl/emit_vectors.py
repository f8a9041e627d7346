"""Frames as the testbench and a user's own simulation read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qcompile.backends.hdl.emit_request import EmitRequest, Port
from qcompile.errors import DataError
from qcompile.hw.axi_stream import data_bits, element_bytes
from qcompile.hw.streams import TensorStream, pack_lanes
from qcompile.types import Array


def beats(stream: TensorStream, tensor: Array) -> list[int]:
    """`tdata` of every beat of a frame: each element sign- or zero-extended to whole bytes."""
    return pack_lanes(stream.to_beats(tensor), 8 * element_bytes(stream))


def vector_file(port: Port) -> str:
    """Name of the file with the beats of a port."""
    direction = "in" if port.name.startswith("s_") else "out"
    return f"vectors_{direction}{port.suffix}.hex"


def vector_files(request: EmitRequest) -> Mapping[str, str]:
    """One file for each port, in the form of `$readmemh`: one beat a line, frame after frame.

    Raises:
        DataError: a tensor is missing, has another size or values outside its type.
    """
    files = {}
    for port in (*request.input_ports, *request.output_ports):
        digits = data_bits(port.stream) // 4
        lines = [f"// {port.name}_tdata of {len(request.vectors)} frames, {port.stream.beats} each"]
        for frame in _tensors(port, request.vectors):
            lines += [f"{beat:0{digits}x}" for beat in beats(port.stream, frame)]
        files[vector_file(port)] = "\n".join(lines) + "\n"
    return files


def _tensors(port: Port, vectors: Sequence[Mapping[str, Array]]) -> list[Array]:
    stream, value = port.stream, port.tensor.value
    found = []
    for index, vector in enumerate(vectors):
        if value not in vector:
            raise DataError(f"test vector {index}: has no array for '{value}'")
        tensor = vector[value]
        size = stream.pixels * stream.channels
        if tensor.size != size:
            raise DataError(
                f"test vector {index}: '{value}' has {tensor.size} elements, not {size}"
            )
        low, high = int(tensor.min()), int(tensor.max())
        if low < stream.element.low or high > stream.element.high:
            raise DataError(
                f"test vector {index}: '{value}' has codes {low} to {high}, {stream.element} holds "
                f"{stream.element.low} to {stream.element.high}"
            )
        found.append(tensor)
    return found
