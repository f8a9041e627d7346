"""Codes of weights that keep what each layer computes, found layer after layer.

The float network and the quantised one run side by side over the calibration images, so that each
layer's weights are chosen for the inputs it will really see, and make up for what rounding did to
the layers before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.graph import Graph, Op
from qcompile.ops import IDENTITY, WEIGHTED, Add, SumOp
from qcompile.passes.compensated_rounding import Grid, Moments, kept_bias, round_weights
from qcompile.passes.fake_quantize import on_grid
from qcompile.passes.patches import Positions, outputs_at, patches_at
from qcompile.passes.weight_quantizers import QuantizedRows, exact_rows, quantize_rows
from qcompile.passes.weight_rows import from_rows, to_rows
from qcompile.plan import Format, Quantizer
from qcompile.types import (
    FLOAT32,
    TERNARY,
    Array,
    Codebook,
    CodebookKind,
    IntType,
    TensorType,
)

MEMORY = 3 << 30
"""Bytes that the tensors of both networks may take; fewer images are used where they take more."""
FEWEST_IMAGES = 4
FEW_BITS = 4
"""Up to here rounding errors are worth the coordinate descent."""
MOST_COLUMNS = 9216
"""Filters with more weights are rounded to nearest: squares of 1024 channels of a 3x3 kernel take
340 MB, and several times that to invert."""
FEWEST_BITS = 3
"""Up to here the scale that rounding starts from decides where it ends."""
FEWEST_SAMPLES = 1.25
"""Sampled outputs for each weight of a filter. With fewer the weights that fit them best say more
of these samples than of other images."""
FREE = (Quantizer.SCALED, Quantizer.FIXED, Quantizer.TERNARY)
"""Formats whose codes are free to move; the others follow a rule of their own."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How much work goes into weights.

    Attributes:
        positions: sampled outputs of a layer over all images; 0 rounds every weight to its nearest
            code, without any data.
        solves: whether the weights are first solved against the float network's output.
        rounds, sweeps: see `Grid`; for weights of at most 4 bits.
        starts: see `Grid`; for weights of at most 3 bits.
    """

    positions: int = 8000
    solves: bool = True
    rounds: int = 2
    sweeps: int = 2
    starts: tuple[float, ...] = (0.7, 0.85, 1.0, 1.2, 1.4)


NEAREST = Recipe(positions=0)


@dataclass(frozen=True)
class Solved:
    """A layer's codes [channels, n] (None: the weights stay float) and its bias [channels] (None:
    it stays what it is)."""

    rows: QuantizedRows | None
    bias: Array | None


@dataclass
class _Values:
    """Every live tensor of one network, for all images, by name."""

    graph: Graph
    of: dict[str, list[Array]]

    def inputs(self, op: Op, image: int) -> list[Array]:
        """What an operator reads for one image; quantized constants as real numbers."""
        return [
            self.of[name][image] if name in self.of else self._constant(name) for name in op.inputs
        ]

    def _constant(self, name: str) -> Array:
        kind, data = self.graph.types[name], self.graph.constants[name]
        if kind.quantization is None:
            return data
        return np.asarray(data.astype(np.float32) * kind.quantization.factors(data.shape))


class Compensation:
    """One run: both networks, operator after operator, over all images."""

    def __init__(
        self,
        graph: Graph,
        reference: Graph,
        formats: Mapping[str, Format | None],
        recipe: Recipe,
        feeds: Sequence[Mapping[str, Array]],
        seed: int,
    ) -> None:
        """
        Args:
            graph: of stage QUANTIZED, with its activations' types, but with float weights.
            reference: the float graph it was made of.
            formats: of weights, by operator; None where they stay float.
            recipe: how codes are found.
            feeds: calibration images.
            seed: of the sampled positions.
        """
        self.graph = graph
        self.reference = reference
        self.formats = formats
        self.recipe = recipe
        self.seed = seed
        self.feeds = feeds[: _affordable(graph, len(feeds))]
        self.real = _Values(graph, {})
        self.held = _Values(graph, {})
        self.solved: dict[str, Solved] = {}

    def run(self, progress: Callable[[int, int], None] | None = None) -> dict[str, Solved]:
        """Codes and biases of all weighted operators, by name.

        One thread a product, so that no digit depends on how many cores there are.
        """
        from qcompile.sim.threads import single_threaded_blas

        with single_threaded_blas():
            return self._run(progress)

    def _run(self, progress: Callable[[int, int], None] | None) -> dict[str, Solved]:
        graph = self.graph
        last_reader = {value: op.name for op in graph.ops for value in op.inputs}
        for name in graph.inputs:
            self.real.of[name] = [feed[name] for feed in self.feeds]
            self.held.of[name] = [on_grid(feed[name], graph.types[name]) for feed in self.feeds]
        for index, op in enumerate(graph.ops):
            if isinstance(op, WEIGHTED):
                sums = self._sums(op)
                self.solved[op.name] = self._solve(op, sums)
                self._finish(op, sums)
            else:
                self._run_both(op)
            for value in dict.fromkeys((*op.inputs, *op.outputs)):
                if last_reader.get(value, op.name) == op.name:
                    self.real.of.pop(value, None)
                    self.held.of.pop(value, None)
            if progress is not None:
                progress(index + 1, len(graph.ops))
        return self.solved

    def _compute(self, op: Op, inputs: Sequence[Array]) -> Array:
        from qcompile.sim.table import KERNELS

        kind = self.graph.output_type(op)
        is_index = kind.quantization is None and not kind.is_float
        function = KERNELS[type(op)].float_
        assert function is not None
        return function(op, inputs, TensorType(kind.shape, kind.element if is_index else FLOAT32))

    def _original(self, op: Op) -> Op:
        """The operator as the float graph has it, for the values of the quantized one."""
        found = self.reference.by_name.get(op.name)
        if not isinstance(op, SumOp) or not isinstance(found, SumOp):
            return op
        return dataclasses.replace(op, activation=found.activation)

    def _run_both(self, op: Op) -> None:
        """The float and the quantised outputs of an operator without weights."""
        kind = self.graph.output_type(op)
        original = self._original(op)
        images = range(len(self.feeds))
        self.real.of[op.output] = [
            self._compute(original, self.real.inputs(original, image)) for image in images
        ]
        self.held.of[op.output] = [
            on_grid(self._compute(op, self.held.inputs(op, image)), kind) for image in images
        ]

    def _sums(self, op: Op) -> list[Array]:
        """The float network's outputs of a weighted operator, before its activation."""
        assert isinstance(op, SumOp)
        plain = dataclasses.replace(op, activation=IDENTITY)
        images = range(len(self.feeds))
        return [self._compute(plain, self.real.inputs(op, image)) for image in images]

    def _solve(self, op: Op, sums: list[Array]) -> Solved:
        rows = to_rows(op, self.graph.constants[op.inputs[1]])
        chosen = self.formats[op.name]
        groups = getattr(op, "groups", 1)
        x, y = self._samples(op, sums)
        wanted = y.reshape(len(y), groups, -1).transpose(1, 0, 2).copy()
        measure = Moments.measured if rows.shape[1] <= MOST_COLUMNS else Moments.of_means
        moments = measure(x, wanted)
        weights = rows.reshape(groups, -1, rows.shape[1])
        if chosen is None:
            return Solved(None, kept_bias(weights, moments).reshape(-1))
        exact = exact_rows(rows, chosen)
        if exact is None and chosen.quantizer in FREE and moments.has_squares:
            found = round_weights(weights, moments, self._grid(chosen, x.shape[1] / x.shape[2]))
            quantized = QuantizedRows(
                found.codes.reshape(rows.shape),
                found.scales.reshape(-1),
                _element(chosen),
                _codebook(chosen),
            )
        else:
            quantized = exact or quantize_rows(rows, chosen)
        real = quantized.reals().reshape(weights.shape)
        return Solved(quantized, kept_bias(real, moments).reshape(-1))

    def _grid(self, chosen: Format, samples_per_weight: float) -> Grid:
        recipe = self.recipe
        few = chosen.bits <= FEW_BITS
        return Grid(
            _element(chosen).high,
            chosen.power_of_two_scale,
            None if chosen.q is None else chosen.q.step,
            recipe.rounds if few else min(1, recipe.rounds),
            recipe.sweeps if few else 0,
            recipe.solves and samples_per_weight >= FEWEST_SAMPLES,
            recipe.starts if chosen.bits <= FEWEST_BITS else (1.0,),
        )

    def _samples(self, op: Op, sums: list[Array]) -> tuple[Array, Array]:
        """Quantised inputs [G, positions, K] and wanted sums [positions, channels]."""
        shape = self.graph.output_type(op).shape
        kernel = self.graph.types[op.inputs[1]].shape
        each = max(1, self.recipe.positions // len(self.feeds))
        other = self._other_term(op)
        inputs, wanted = [], []
        for image, (x, y) in enumerate(zip(self.held.of[op.inputs[0]], sums, strict=True)):
            generator = np.random.default_rng((self.seed, image, 2))
            positions = Positions.drawn(shape, op, each, generator)
            inputs.append(patches_at(op, x, kernel, positions))
            rows = outputs_at(op, y, positions).astype(np.float32)
            if other is not None:
                value, factor = other
                error = outputs_at(op, self.real.of[value][image], positions)
                error = error - outputs_at(op, self.held.of[value][image], positions)
                rows += np.float32(factor) * error
            wanted.append(rows)
        return np.concatenate(inputs, axis=1), np.concatenate(wanted)

    def _other_term(self, op: Op) -> tuple[str, float] | None:
        """The value that is added to this operator's output, if its error is known by now.

        The layer then makes up for the other branch's rounding, too.
        """
        assert isinstance(op, SumOp)
        reader = self.graph.only_consumer(op.output)
        if not isinstance(reader, Add) or not op.activation.is_identity:
            return None
        place = reader.inputs.index(op.output)
        other = reader.inputs[1 - place]
        if other not in self.held.of or other == op.output:
            return None
        if self.graph.types[other].shape != self.graph.output_type(op).shape:
            return None
        return other, reader.weights[1 - place] / reader.weights[place]

    def _finish(self, op: Op, sums: list[Array]) -> None:
        """Both outputs of a layer that is solved."""
        original = self._original(op)
        assert isinstance(original, SumOp)
        kind = self.graph.output_type(op)
        solved = self.solved[op.name]
        weights = self.graph.constants[op.inputs[1]]
        if solved.rows is not None:
            weights = from_rows(op, solved.rows.reals(), weights.shape).astype(np.float32)
        assert solved.bias is not None
        constants = (weights, solved.bias.astype(np.float32))
        self.held.of[op.output] = [
            on_grid(self._compute(op, (x, *constants)), kind) for x in self.held.of[op.inputs[0]]
        ]
        axis = original.channel_axis(kind.rank)
        self.real.of[op.output] = [original.activation.apply(y, axis) for y in sums]


def _element(chosen: Format) -> IntType:
    if chosen.quantizer is Quantizer.TERNARY:
        return TERNARY
    return IntType(chosen.bits, narrow=True)


def _codebook(chosen: Format) -> Codebook:
    element = _element(chosen)
    is_ternary = chosen.quantizer is Quantizer.TERNARY
    kind = CodebookKind.TERNARY if is_ternary else CodebookKind.UNIFORM
    return Codebook(kind, element.high - element.low + 1)


def _affordable(graph: Graph, images: int) -> int:
    """How many images' tensors fit into `MEMORY`, at least a few."""
    last = {value: index for index, op in enumerate(graph.ops) for value in op.inputs}
    freed = dict.fromkeys(range(len(graph.ops)), 0)
    live = peak = sum(graph.types[name].size for name in graph.inputs)
    for name in graph.inputs:
        freed[last.get(name, 0)] += graph.types[name].size
    for index, op in enumerate(graph.ops):
        size = graph.output_type(op).size
        freed[last.get(op.output, index)] += size
        live += size
        peak = max(peak, live)
        live -= freed[index]
    of_one_image = 2 * 4 * peak
    return max(min(FEWEST_IMAGES, images), min(images, MEMORY // of_one_image))
