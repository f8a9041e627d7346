"""A graph of the compiler as a `torch.nn.Module`: floats, or as it will be quantised.

In training the module computes real numbers: weights and activations are rounded to their grids,
sums between them are not, and all of it has gradients. What the compiled network computes exactly,
with its integer multipliers and biases, is `IntegerModule`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from qcompile.errors import Unsupported, UnsupportedError
from qcompile.graph import Graph, Op
from qcompile.ops import (
    MOVEMENT,
    WEIGHTED,
    Affine,
    Conv,
    ConvTranspose,
    GroupNorm,
    LocalAttention2d,
    Pad,
    SumOp,
)
from qcompile.ops.code_limits import moved_inputs
from qcompile.passes.activation_ranges import Start
from qcompile.train.activation_quantizer import quantize_activation
from qcompile.train.batches import image_slices, is_batchable, joined, part_of
from qcompile.train.incremental_weights import IncrementalWeights
from qcompile.train.reals import REAL_OPERATORS, Vectors, real_operator
from qcompile.train.scales import Scales
from qcompile.train.sums import MOST_SPATIAL_AXES
from qcompile.train.tensors import straight_through
from qcompile.train.weight_quantizer import WeightQuantizer
from qcompile.types import Array, TensorType

TRAINED_INPUTS: tuple[type[Op], ...] = (*WEIGHTED, Affine, GroupNorm, LocalAttention2d)
"""Operators whose constant inputs are trained."""


class GraphModule(nn.Module):
    """Runs a float graph, or one with the types of its activations, on batches of real numbers.

    Constants of weighted operators and norms are parameters, and so are gains, shifts and slopes by
    channel of activations. Where a value has a quantized type, it is rounded to its grid.
    """

    def __init__(
        self,
        graph: Graph,
        scales: Scales | None = None,
        weights: Mapping[str, WeightQuantizer | IncrementalWeights] | None = None,
        starts: Mapping[str, Start] | None = None,
    ) -> None:
        """
        Args:
            graph: of stage FLOAT; or of stage QUANTIZED with weights that are still float.
            scales: of the quantized activations; needed if there are any.
            weights: operator -> the quantizer of its weights.
            starts: value -> where the codes of its channels begin.

        Raises:
            UnsupportedError: torch cannot compute some operator.
        """
        super().__init__()
        _check(graph)
        self.graph = graph
        self.batchable = is_batchable(graph)
        self.scales = scales
        self.levels = {value: start.levels for value, start in (starts or {}).items()}
        quantizers = weights or {}
        self.weight_quantizers = nn.ModuleList(quantizers.values())
        self._quantizer_of = {name: place for place, name in enumerate(quantizers)}
        self.trained = nn.ParameterList()
        self._trained_place: dict[str, int] = {}
        self._buffer_name: dict[str, str] = {}
        self.vectors = nn.ParameterList()
        self._vector_place: dict[tuple[str, str], int] = {}
        for op in graph.ops:
            self._place_constants(op)
            if isinstance(op, SumOp):
                self._place_vectors(op)

    def _place_constants(self, op: Op) -> None:
        for position, name in enumerate(op.inputs):
            if not self.graph.is_constant(name) or name in self._trained_place:
                continue
            kind = self.graph.types[name]
            data = _real(self.graph.constants[name], kind)
            is_trained = isinstance(op, TRAINED_INPUTS) and position > 0 and kind.is_float
            if is_trained:
                self._trained_place[name] = len(self.trained)
                self.trained.append(nn.Parameter(torch.from_numpy(data)))
            elif name not in self._buffer_name:
                self._buffer_name[name] = f"constant{len(self._buffer_name)}"
                self.register_buffer(self._buffer_name[name], torch.from_numpy(data))

    def _place_vectors(self, op: SumOp) -> None:
        activation = op.activation
        for part, values, is_trained in (
            ("slope", activation.slope, len(activation.slope) > 1),
            ("gain", activation.gain, activation.gain != (1.0,)),
            ("shift", activation.shift, activation.shift != (0.0,)),
        ):
            if is_trained:
                self._vector_place[op.name, part] = len(self.vectors)
                self.vectors.append(nn.Parameter(torch.tensor(values)))

    def forward(
        self,
        feeds: Mapping[str, Tensor],
        taps: Collection[str] = (),
        exact: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The graph outputs, and the values named in `taps`, all as real numbers.

        Args:
            feeds: for each graph input real numbers [N, ...], of the dtype of the parameters.
            taps: further values to return.
            exact: codes that the compiled network has on the same images: values are then these
                codes times their scales, to the last bit, and only gradients are the module's own.
        """
        wanted = tuple(dict.fromkeys((*self.graph.outputs, *taps)))
        images = image_slices(self.graph, self.batchable, feeds)
        return joined(
            [self._run(part_of(feeds, part), part_of(exact or {}, part), wanted) for part in images]
        )

    def _run(
        self, feeds: Mapping[str, Tensor], codes: Mapping[str, Tensor], wanted: Sequence[str]
    ) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        for name in self.graph.inputs:
            rounded = self._rounded(name, feeds[name], None)
            values[name] = self._as_compiled(name, rounded, codes)
        last = {value: op.name for op in self.graph.ops for value in op.inputs}
        for op in self.graph.ops:
            inputs = [
                values[name] if name in values else self._constant_for(op, place)
                for place, name in enumerate(op.inputs)
            ]
            values[op.output] = self._as_compiled(op.output, self._computed(op, inputs), codes)
            for name in set(op.inputs):
                if last[name] == op.name and name in values and name not in wanted:
                    del values[name]
        return {name: values[name] for name in wanted}

    def _as_compiled(self, value: str, data: Tensor, codes: Mapping[str, Tensor]) -> Tensor:
        if value not in codes:
            return data
        if self.scales is None or self.graph.types[value].quantization is None:
            found = codes[value]
            return found.to(data.dtype) if data.is_floating_point() else found
        scale = self.scales(value).detach()
        return straight_through(codes[value].to(data.dtype) * scale, data)

    def is_trained(self, name: str) -> bool:
        """Whether a constant is a parameter."""
        return name in self._trained_place

    def constant(self, name: str) -> Tensor:
        """A constant of the graph, as trained so far."""
        if name in self._trained_place:
            parameter: Tensor = self.trained[self._trained_place[name]]
            return parameter
        found: Tensor = getattr(self, self._buffer_name[name])
        return found

    def weights(self, op: Op) -> Tensor:
        """The weights of a weighted operator on their grid: those of the compiled network."""
        data = self.constant(op.inputs[1])
        quantizer = self._quantizer(op)
        return data if quantizer is None else quantizer.grid(data)

    def freeze_weights(self, share: float) -> None:
        """Freezes a share of the weights of every operator that `IncrementalWeights` holds."""
        for op in self.graph.ops:
            quantizer = self._quantizer(op)
            if isinstance(quantizer, IncrementalWeights):
                quantizer.freeze(self.constant(op.inputs[1]), share)

    def _quantizer(self, op: Op) -> WeightQuantizer | IncrementalWeights | None:
        if op.name not in self._quantizer_of:
            return None
        found = self.weight_quantizers[self._quantizer_of[op.name]]
        assert isinstance(found, WeightQuantizer | IncrementalWeights)
        return found

    def activation_vectors(self, op: Op) -> Vectors:
        """The trained parameters of an operator's activation."""
        found = {
            part: self.vectors[place]
            for (name, part), place in self._vector_place.items()
            if name == op.name
        }
        return Vectors(**found)

    def _constant_for(self, op: Op, place: int) -> Tensor:
        data = self.constant(op.inputs[place])
        quantizer = self._quantizer(op) if place == 1 else None
        if quantizer is None:
            return data
        result: Tensor = quantizer(data)
        return result

    def _computed(self, op: Op, inputs: Sequence[Tensor]) -> Tensor:
        kind = self.graph.output_type(op)
        if isinstance(op, Pad) and kind.quantization is not None:
            op = dataclasses.replace(op, value=self._pad_value(op, kind))
        vectors = self.activation_vectors(op) if isinstance(op, SumOp) else None
        result = real_operator(op, inputs, vectors)
        codes = [self.graph.types[name] for name in moved_inputs(op)]
        if isinstance(op, MOVEMENT) and all(item.quantization is not None for item in codes):
            return result
        return self._rounded(op.output, result, vectors)

    def _rounded(self, value: str, data: Tensor, vectors: Vectors | None) -> Tensor:
        kind = self.graph.types[value]
        if self.scales is None or kind.quantization is None:
            return data
        if self.training:
            self.scales.observe(value, data, kind.integer)
        scale = self.scales(value)
        limits = None
        if value in self.levels:
            limits = self._limits(value, kind, float(scale.detach()), vectors)
        return quantize_activation(data, scale, kind, limits)

    @torch.no_grad()
    def _limits(
        self, value: str, kind: TensorType, scale: float, vectors: Vectors | None
    ) -> tuple[Tensor, Tensor]:
        """`Start.limits` with the gains and shifts of now."""
        op = self.graph.producers[value]
        assert isinstance(op, SumOp)
        channels = kind.shape[1]

        def vector(trained: Tensor | None, values: tuple[float, ...]) -> list[float]:
            found = list(values) if trained is None else trained.double().tolist()
            return found * channels if len(found) == 1 else found

        found = vectors or Vectors()
        shift = tuple(vector(found.shift, op.activation.shift))
        rises = tuple(gain >= 0 for gain in vector(found.gain, op.activation.gain))
        start = Start(shift, rises, self.levels[value])
        ends = start.limits(scale, kind.integer)
        device = self.scales.delta.device if self.scales is not None else None
        return torch.tensor(ends.low, device=device), torch.tensor(ends.high, device=device)

    def _pad_value(self, op: Pad, kind: TensorType) -> float:
        assert self.scales is not None
        scale = float(self.scales(op.output).detach())
        code = min(max(math.floor(op.value / scale + 0.5), kind.integer.low), kind.integer.high)
        return code * scale


def _real(data: Array, kind: TensorType) -> Array:
    """A constant as float32, codes as what they stand for."""
    if kind.is_float or kind.quantization is None:
        return np.array(data, dtype=np.float32)
    return np.asarray(data.astype(np.float32) * kind.quantization.factors(data.shape))


def _check(graph: Graph) -> None:
    found = []
    for op in graph.ops:
        advice = "train a network without it"
        if not isinstance(op, REAL_OPERATORS):
            found.append(Unsupported(op.kind, op.name, "has no form in torch", advice))
        elif isinstance(op, Conv | ConvTranspose):
            axes = graph.types[op.inputs[0]].rank - 2
            if axes > MOST_SPATIAL_AXES:
                reason = f"has {axes} spatial axes, torch has at most {MOST_SPATIAL_AXES}"
                found.append(Unsupported(op.kind, op.name, reason, advice))
    if found:
        raise UnsupportedError(found, "training")
