"""Runs a graph in numpy: the float reference, and the bit-accurate integer simulation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.errors import DataError, GraphError
from qcompile.graph import Graph, Op, Stage
from qcompile.sim.kernel import KernelFunction
from qcompile.sim.table import KERNELS
from qcompile.sim.threads import single_threaded_blas
from qcompile.types import Array, IntType, TensorType

Observer = Callable[[str, Array], None]
"""Called with each activation's name and data as soon as it exists."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One operator with everything that does not change from run to run.

    `constants` has the prepared array of each constant input, None for computed inputs. `release`
    names the values that nobody reads after this operator.
    """

    op: Op
    kernel: KernelFunction
    constants: tuple[Array | None, ...]
    output: TensorType
    release: tuple[str, ...]


class Executor:
    """Runs one graph any number of times, in the float or the integer stage.

    In the integer stage tensors travel in the storage dtype of their element type; operators with
    float outputs are float islands, whose quantised constants become float32 once, here.
    """

    def __init__(self, graph: Graph) -> None:
        if graph.stage is Stage.QUANTIZED:
            raise GraphError(
                f"graph '{graph.name}' is quantized but not lowered and has no arithmetic of its "
                f"own; run the graph before quantization, or the lowered one"
            )
        self.graph = graph
        last_reader = {value: op.name for op in graph.ops for value in op.inputs}
        self._steps = tuple(self._prepare(op, last_reader) for op in graph.ops)

    def _prepare(self, op: Op, last_reader: Mapping[str, str]) -> _Step:
        graph = self.graph
        output = graph.output_type(op)
        entry = KERNELS.get(type(op))
        kernel = None
        if entry is not None:
            kernel = entry.float_ if output.is_float else entry.integer
        if kernel is None:
            raise GraphError(
                f"{op.label()}: the simulator has no kernel with {output.element} output for it; "
                f"check the pass that made the output type"
            )
        constants = tuple(
            _constant(graph.constants[value], graph.types[value], output.is_float)
            if value in graph.constants
            else None
            for value in op.inputs
        )
        computed = [value for value in op.inputs if value not in graph.constants]
        release = [value for value in computed if last_reader[value] == op.name]
        release += [value for value in op.outputs if value not in last_reader]
        return _Step(op, kernel, constants, output, tuple(dict.fromkeys(release)))

    def run(
        self,
        feeds: Mapping[str, Array],
        taps: Collection[str] | None = None,
        observe: Observer | None = None,
    ) -> dict[str, Array]:
        """Computes the outputs of the graph.

        Args:
            feeds: for each graph input an array of its shape and storage dtype.
            taps: further values to return, by name; "all" returns every activation.
            observe: sees every activation, inputs first, without keeping any of them alive.

        Returns:
            The graph outputs and the taps, by name.

        Raises:
            DataError: the feeds do not fit the graph's inputs, or a tap does not exist.
        """
        keep = self._kept(taps)
        values = self._checked(feeds)
        with single_threaded_blas():
            return self._run(values, keep, observe)

    def _run(
        self, values: dict[str, Array], keep: set[str], observe: Observer | None
    ) -> dict[str, Array]:
        if observe is not None:
            for name, data in values.items():
                observe(name, data)
        result = {name: data for name, data in values.items() if name in keep}
        result |= {name: data for name, data in self.graph.constants.items() if name in keep}
        for step in self._steps:
            inputs = [
                values[name] if constant is None else constant
                for name, constant in zip(step.op.inputs, step.constants, strict=True)
            ]
            data = step.kernel(step.op, inputs, step.output)
            name = step.op.output
            if data.shape != step.output.shape or data.dtype != step.output.element.storage:
                raise GraphError(
                    f"{step.op.label()}: computed {data.dtype}{list(data.shape)} where the graph "
                    f"says {step.output}; the pass that made this operator is wrong"
                )
            values[name] = data
            if observe is not None:
                observe(name, data)
            if name in keep:
                result[name] = data
            del inputs, data
            for gone in step.release:
                del values[gone]
        return result

    def _kept(self, taps: Collection[str] | None) -> set[str]:
        keep = set(self.graph.outputs)
        if taps is None:
            return keep
        activations = self.graph.activations()
        if isinstance(taps, str):
            if taps != "all":
                raise DataError(f"taps is '{taps}'; give a list of value names, or 'all'")
            return keep | set(activations)
        unknown = sorted(set(taps) - set(activations))
        if unknown:
            raise DataError(
                f"value '{unknown[0]}' does not exist in '{self.graph.name}'; its operators write "
                f"{_listing(activations)}"
            )
        return keep | set(taps)

    def _checked(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        graph = self.graph
        unknown = sorted(set(feeds) - set(graph.inputs))
        missing = [name for name in graph.inputs if name not in feeds]
        if unknown or missing:
            wrong = f"input '{missing[0]}' is missing" if missing else f"no input '{unknown[0]}'"
            raise DataError(f"{wrong}; '{graph.name}' takes {_listing(graph.inputs)}")
        checked: dict[str, Array] = {}
        for name in graph.inputs:
            kind = graph.types[name]
            data = np.asarray(feeds[name])
            if data.shape != kind.shape:
                raise DataError(
                    f"input '{name}' has shape {list(data.shape)}, the graph expects "
                    f"{list(kind.shape)}; reshape the data or compile with --input-shape"
                )
            if data.dtype != kind.element.storage:
                raise DataError(
                    f"input '{name}' has dtype {data.dtype}, the graph expects "
                    f"{kind.element.storage}; convert the data"
                )
            if isinstance(kind.element, IntType) and not _holds(kind.element, data):
                raise DataError(
                    f"input '{name}' has values {data.min()}..{data.max()}, the graph expects "
                    f"{kind.element.low}..{kind.element.high}; clip the data"
                )
            checked[name] = data
        return checked


def _constant(data: Array, kind: TensorType, float_output: bool) -> Array:
    """A constant as its operator's kernel wants it: quantised ones of float islands as float32."""
    if not float_output or kind.is_float or kind.quantization is None:
        return np.ascontiguousarray(data) if data.ndim else data
    return np.asarray(data.astype(np.float32) * kind.quantization.factors(data.shape))


def _holds(element: IntType, data: Array) -> bool:
    if element.range.contains(IntType(8 * data.itemsize, data.dtype.kind == "i").range):
        return True
    return bool(data.size == 0 or (data.min() >= element.low and data.max() <= element.high))


def _listing(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
