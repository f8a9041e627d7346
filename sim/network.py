"""The simulator for users: a compiled network that runs on arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from qcompile.errors import DataError
from qcompile.graph import Graph
from qcompile.sim.executor import Executor
from qcompile.sim.file import load_network
from qcompile.types import Array, TensorType


class Network:
    """An integer network that computes what the emitted C and hardware compute, bit for bit.

    Attributes:
        graph: the operators, types and constants.
        metadata: texts that the compiler kept with the network.
    """

    def __init__(self, graph: Graph, metadata: Mapping[str, str] | None = None) -> None:
        self.graph = graph
        self.metadata: dict[str, str] = dict(metadata or {})
        self._executor = Executor(graph)

    @property
    def inputs(self) -> dict[str, TensorType]:
        """The inputs by name: raw uint8 pixels or float32."""
        return {name: self.graph.types[name] for name in self.graph.inputs}

    @property
    def outputs(self) -> dict[str, TensorType]:
        """The outputs by name: float32, or integers such as a class map."""
        return {name: self.graph.types[name] for name in self.graph.outputs}

    def run(
        self, x: Array | Mapping[str, Array], taps: Collection[str] | str | None = None
    ) -> dict[str, Array]:
        """Runs the network on one image.

        Args:
            x: the input array, or for several inputs a mapping from names. Leading axes of size 1
                may be missing; integer pixels may have any integer dtype.
            taps: names of further values to return, or "all" for every operator's output.

        Returns:
            Outputs and taps by value name. Integer values are codes: multiply by
            `graph.types[name].quantization.scale` for real numbers.

        Raises:
            DataError: shapes, dtypes or names do not fit the network.
        """
        if isinstance(x, Mapping):
            feeds = dict(x)
        elif len(self.graph.inputs) == 1:
            feeds = {self.graph.inputs[0]: x}
        else:
            names = ", ".join(f"'{name}'" for name in self.graph.inputs)
            raise DataError(f"the network has several inputs; give a dict with {names}")
        prepared = {
            name: _prepared(name, data, self.graph.types[name])
            if name in self.graph.inputs
            else data
            for name, data in feeds.items()
        }
        return self._executor.run(prepared, taps)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}: {kind}" for name, kind in self.inputs.items())
        outputs = ", ".join(f"{name}: {kind}" for name, kind in self.outputs.items())
        return f"Network({self.graph.name!r}, {inputs} -> {outputs})"


def _prepared(name: str, data: Array, kind: TensorType) -> Array:
    data = np.asarray(data)
    missing = kind.rank - data.ndim
    if missing > 0 and kind.shape == (1,) * missing + data.shape:
        data = data.reshape(kind.shape)
    if kind.is_float:
        if data.dtype.kind != "f":
            raise DataError(
                f"input '{name}' takes float32 but has dtype {data.dtype}; scale the pixels as "
                f"the model was trained, or compile for uint8 input"
            )
        return data.astype(np.float32, copy=False)
    element = kind.integer
    if data.dtype.kind not in "iu":
        raise DataError(
            f"input '{name}' takes {element.storage} codes but has dtype {data.dtype}; "
            f"give the raw pixels"
        )
    if data.size and (data.min() < element.low or data.max() > element.high):
        raise DataError(
            f"input '{name}' has values {data.min()}..{data.max()}, beyond "
            f"{element.low}..{element.high}; give the raw pixels"
        )
    return data.astype(element.storage, copy=False)


def load(path: Path | str) -> Network:
    """The network in a file that `--target sim` wrote.

    Raises:
        ModelError: the file is missing, damaged or breaks a rule.
    """
    return Network(*load_network(path))
