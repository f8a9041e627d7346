"""From raw inputs (uint8 pixels or float32) to what each form of the network takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qcompile.boundary import InputKind, InputSpec, channel_axis
from qcompile.errors import DataError, UsageError
from qcompile.graph import Graph
from qcompile.options import CompileOptions, InputChoice
from qcompile.types import Array, per_channel

Feed = Mapping[str, Array]
"""Input name -> data."""


def choose_input_kind(choice: InputChoice, is_float: bool, label: str) -> InputKind:
    """The compiled network's input kind: what is asked for, or what the data at hand are.

    Raises:
        DataError: uint8 is asked for but the data are floats.
    """
    if choice is InputChoice.UINT8 and is_float:
        raise DataError(
            f"{label}: has floats, which a network with uint8 input cannot take; "
            f"use --input-kind float32, or give uint8 pixels (--window makes them)"
        )
    if choice is InputChoice.FLOAT32 or is_float:
        return InputKind.FLOAT32
    return InputKind.UINT8


def input_specs(graph: Graph, kind: InputKind, options: CompileOptions) -> dict[str, InputSpec]:
    """The inputs of an imported float graph, by name.

    An input that the model takes as uint8 or int8 codes has its own scale and zero point. Pixel p
    stands for the code p, or p - 128 where codes are signed.

    Raises:
        UsageError: the options say what the model says otherwise.
    """
    general = InputSpec(kind, options.input_scale, options.input_mean, options.input_std)
    return {name: _input_spec(graph, name, general) for name in graph.inputs}


def _input_spec(graph: Graph, name: str, general: InputSpec) -> InputSpec:
    grid, limits = graph.types[name].quantization, graph.types[name].limits
    if grid is None or limits is None:
        return general
    mean = -limits.low[0] * grid.scale[0]
    own = InputSpec(general.kind, grid.scale, (mean,))
    if general not in (own, InputSpec(general.kind)):
        raise UsageError(
            f"--input-scale, --input-mean, --input-std: the model says itself what the codes of "
            f"its input '{name}' mean; leave them out"
        )
    return own


def float_feed(feed: Feed, specs: Mapping[str, InputSpec]) -> dict[str, Array]:
    """Raw inputs as the float network takes them: pixels through (p * scale - mean) / std."""
    return {name: _as_float(name, data, specs[name]) for name, data in feed.items()}


def _as_float(name: str, data: Array, spec: InputSpec) -> Array:
    if data.dtype != np.uint8:
        return data.astype(np.float32, copy=False)
    table = spec.pixel_values().astype(np.float32)
    if len(table) == 1:
        return np.asarray(table[0][data])
    axis = channel_axis(data.shape)
    if len(table) != data.shape[axis]:
        raise DataError(
            f"input '{name}': --input-scale, --input-mean or --input-std has {len(table)} values "
            f"for {data.shape[axis]} channel(s); give one, or one for each"
        )
    rows = per_channel(range(len(table)), "int64", axis, data.ndim)
    return np.asarray(table[rows, data])


def integer_feed(feed: Feed, graph: Graph, specs: Mapping[str, InputSpec]) -> dict[str, Array]:
    """Raw inputs as the compiled network takes them.

    Raises:
        DataError: its input is uint8 but the data are floats.
    """
    result = {}
    for name, data in feed.items():
        if graph.types[name].is_float:
            result[name] = _as_float(name, data, specs[name])
        elif data.dtype == np.uint8:
            result[name] = data
        else:
            raise DataError(
                f"input '{name}': the data are {data.dtype}, the compiled network takes uint8 "
                f"pixels; compile with --input-kind float32"
            )
    return result
