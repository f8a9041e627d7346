"""Names, types and static shapes of the graph's inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from qcompile.errors import ModelError, UsageError
from qcompile.importer.codes import element_codes
from qcompile.importer.tensors import DTYPES, element_name
from qcompile.types import Shape

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
INTEGERS = (
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.UINT16,
    TensorProto.INT16,
    TensorProto.INT32,
    TensorProto.INT64,
)


@dataclass(frozen=True, slots=True)
class Input:
    """A graph input; `integers` is the range of its elements if they are integers."""

    name: str
    shape: Shape
    integers: tuple[int, int] | None


def resolve_inputs(
    declared: Sequence[onnx.ValueInfoProto], given: Mapping[str, Shape], batch_one: bool
) -> tuple[Input, ...]:
    """Gives every input a static shape.

    A dynamic batch axis becomes 1; a dimension name that occurs in several inputs has one value.

    Args:
        declared: the inputs that are not initialisers.
        given: shapes from --input-shape, by input name.
        batch_one: refuse batches above 1.

    Raises:
        UsageError: a given shape contradicts the model, or a dynamic axis has no value.
        ModelError: an input is no tensor of numbers, or its batch is not 1.
    """
    names = [value.name for value in declared]
    for name in given:
        if name not in names:
            raise UsageError(
                f"--input-shape names '{name}', but the model's inputs are {names}; use one of them"
            )
    bound: dict[str, int] = {}
    for value in declared:
        dims = dimensions(value)
        if value.name in given:
            _check_given(value.name, dims, given[value.name])
            if dims is not None:
                for dim, size in zip(dims, given[value.name], strict=True):
                    if isinstance(dim, str) and dim:
                        bound.setdefault(dim, size)
    result = []
    for value in declared:
        dims = dimensions(value)
        shape = given.get(value.name) or _static(value.name, dims, bound)
        if batch_one and shape[:1] != (1,):
            raise ModelError(
                f"input '{value.name}': its shape {list(shape)} has batch {shape[0]}, only batch 1 "
                f"is supported; export with batch 1 or a dynamic batch"
            )
        result.append(Input(value.name, tuple(shape), _integers(value)))
    return tuple(result)


def dimensions(value: onnx.ValueInfoProto) -> list[int | str] | None:
    """Sizes and names of the axes ('' for neither); None if not even the rank is known."""
    if value.type.WhichOneof("value") != "tensor_type":
        kind = value.type.WhichOneof("value") or "nothing"
        raise ModelError(
            f"input '{value.name}' is declared as {kind}; only tensors are supported as inputs"
        )
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    dims: list[int | str] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value > 0:
            dims.append(dim.dim_value)
        else:
            dims.append(dim.dim_param)
    return dims


def _integers(value: onnx.ValueInfoProto) -> tuple[int, int] | None:
    kind = value.type.tensor_type.elem_type
    if kind not in FLOATS and kind not in INTEGERS:
        raise ModelError(
            f"input '{value.name}' has elements of type {element_name(kind)}; "
            f"use float32 or uint8 inputs"
        )
    return element_codes(np.dtype(DTYPES[kind])) if kind in INTEGERS else None


def _check_given(name: str, dims: list[int | str] | None, shape: Shape) -> None:
    if not shape or any(size < 1 for size in shape):
        raise UsageError(
            f"--input-shape {name}={_joined(shape)}: give positive sizes, batch 1 first"
        )
    if dims is None:
        return
    fits = len(dims) == len(shape) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(dims, shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"--input-shape {name}={_joined(shape)} contradicts the model, which says "
            f"[{_joined(dim or '?' for dim in dims)}]; only dynamic axes can be chosen"
        )


def _static(name: str, dims: list[int | str] | None, bound: Mapping[str, int]) -> Shape:
    if dims is None:
        raise UsageError(
            f"input '{name}' has no shape in the model; give one with --input-shape {name}=1,..."
        )
    if not dims:
        raise ModelError(f"input '{name}' is a single number without axes; pass it as a constant")
    shape: list[int] = []
    for axis, dim in enumerate(dims):
        if isinstance(dim, int):
            shape.append(dim)
        elif dim in bound:
            shape.append(bound[dim])
        elif axis == 0:
            shape.append(1)
        else:
            example = _joined([1, *(d if isinstance(d, int) else "N" for d in dims[1:])])
            raise UsageError(
                f"input '{name}': axis {axis} ('{dim or '?'}') is dynamic; "
                f"give its size with --input-shape {name}={example}"
            )
    return tuple(shape)


def _joined(items: Iterable[object]) -> str:
    return ",".join(str(item) for item in items)
