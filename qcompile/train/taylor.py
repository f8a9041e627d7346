"""How much each filter matters, by the first-order Taylor expansion of what the network computes.

With x the output of a filter before its activation (norms behind it are in it already), and dx the
gradient, removing the filter changes what the gradient is of by about the sum of x * dx over all
positions. This is exact where the network behind the filter is linear and the filter has no bias.
Filters that go together, such as both terms of an Add, change it by the sum of theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from qcompile.errors import UsageError
from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import (
    IDENTITY,
    ArgMax,
    Conv,
    ConvTranspose,
    LocalAttention2d,
    MatMul,
    Rescale,
    Sigmoid,
    Softmax,
    SumOp,
    Threshold,
)
from qcompile.passes.channel_classes import Channel, channel_classes, loses_heads
from qcompile.passes.filter_importance import is_filtering
from qcompile.train.graph_module import GraphModule
from qcompile.train.taylor_options import TaylorMode, TaylorOf, TaylorOptions
from qcompile.types import Array

SMALLEST_GRADIENT = 1e-5
"""Added to the length of gradients, as published."""

Losses = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""From the values named by `values` of `TaylorScores` and the labels to the sum of the losses of
the images."""


class TaylorScores:
    """Adds up the scores of one float graph, batch by batch.

    Attributes:
        values: what gradients start from: the outputs before sigmoid, softmax and decision.
    """

    def __init__(
        self,
        graph: Graph,
        options: TaylorOptions,
        losses: tuple[str, Losses] | None = None,
        device: torch.device | None = None,
    ) -> None:
        """
        Args:
            graph: simplified, of stage FLOAT.
            options: how scores are computed.
            losses: for gradients of a loss the value that it is computed from, and the loss.
            device: where to compute; None: the CPU.

        Raises:
            UnsupportedError: torch cannot compute some operator.
            UsageError: the outputs have no gradient, or no filter can go.
        """
        if (options.of is TaylorOf.LOSS) != (losses is not None):
            raise UsageError("gradients of the loss need a loss, and no others do")
        self.options = options
        self.losses = None if losses is None else losses[1]
        self.values = scored_values(graph) if losses is None else (losses[0],)
        self.device = device or torch.device("cpu")
        split, self.taps = before_activations(graph)
        if not self.taps:
            raise UsageError(f"'{graph.name}' has no filters that can go: all reach an output")
        self.units = Units.of(graph, self.taps)
        self.module = GraphModule(split).to(self.device).requires_grad_(False)
        self.generator = torch.Generator().manual_seed(options.seed)
        self.images = 0
        self.sums = torch.zeros(self.units.count, dtype=torch.float64, device=self.device)

    def add(self, inputs: Mapping[str, Tensor], labels: Tensor | None = None) -> None:
        """One batch.

        Args:
            inputs: what the float network takes, [N, ...] float32.
            labels: [N, *spatial] class indices, for gradients of the loss.
        """
        count = next(iter(inputs.values())).shape[0]
        size = self.options.batch if self.module.batchable else 1
        for begin in range(0, count, size):
            part = slice(begin, begin + size)
            images = {
                name: data[part].to(self.device).requires_grad_() for name, data in inputs.items()
            }
            marked = None if labels is None else labels[part].to(self.device)
            changes = self.units.joined(self._products(images, marked))
            self.sums += _of_image(self.options.mode, changes).sum(dim=0)
        self.images += count

    def scores(self) -> dict[str, Array]:
        """Operator -> float64 [C], the scores of its filters; those that go together have the same.

        Raises:
            UsageError: there were no images, or a gradient is no number.
        """
        if not self.images:
            raise UsageError("Taylor scores need at least one image")
        result = {}
        means = (self.sums / self.images).abs()
        for name, units in self.units.of_filter.items():
            mean = means[units]
            if not torch.isfinite(mean).all():
                raise UsageError(f"the gradients at operator '{name}' are no numbers")
            length = float(mean.norm())
            if self.options.unit_layers and length > 0:
                mean = mean / length
            result[name] = mean.cpu().numpy()
        return result

    def _products(self, inputs: Mapping[str, Tensor], labels: Tensor | None) -> dict[str, Tensor]:
        """Operator -> float64 [N, C], the sums of x * dx."""
        wanted = tuple(dict.fromkeys((*self.values, *self.taps.values())))
        found = self.module(inputs, taps=wanted)
        outputs = [found[value] for value in self.values]
        directions = self._directions(outputs, labels)
        taps = [found[value] for value in self.taps.values()]
        gradients = torch.autograd.grad(outputs, taps, directions, allow_unused=True)
        result = {}
        for name, data, gradient in zip(self.taps, taps, gradients, strict=True):
            product = torch.zeros_like(data) if gradient is None else data.detach() * gradient
            result[name] = product.double().reshape(*data.shape[:2], -1).sum(dim=2)
        return result

    def _directions(self, outputs: Sequence[Tensor], labels: Tensor | None) -> list[Tensor]:
        """The gradients at the outputs."""
        if self.losses is not None:
            assert labels is not None
            leaves = [data.detach().requires_grad_() for data in outputs]
            loss = self.losses(dict(zip(self.values, leaves, strict=True)), labels)
            found = list(torch.autograd.grad(loss, leaves))
        elif self.options.of is TaylorOf.OUTPUT:
            found = [torch.ones_like(data) for data in outputs]
        else:
            found = [
                torch.randn(data.shape, generator=self.generator).to(data.device)
                for data in outputs
            ]
        if not self.options.unit_gradients:
            return found
        squares = [data.double().flatten(1).square().sum(dim=1) for data in found]
        lengths = torch.stack(squares).sum(dim=0).sqrt() + SMALLEST_GRADIENT
        return [
            (data / lengths.reshape(-1, *[1] * (data.ndim - 1))).to(data.dtype) for data in found
        ]


@dataclasses.dataclass(frozen=True)
class Units:
    """Which filters go together: a unit is all filters of one class of channels.

    Attributes:
        of_filter: operator -> int64 [C], the unit of each of its filters.
        counted: operators whose products count. A grouped convolution passes on what the filter in
            front of it makes, whose product has the change already. So do queries: keys that local
            attention alone reads are not counted; nor are queries whose heads go as a whole, as
            their values are.
        count: of units.
    """

    of_filter: Mapping[str, Tensor]
    counted: frozenset[str]
    count: int

    @staticmethod
    def of(graph: Graph, names: Iterable[str]) -> Units:
        """
        Args:
            graph: a float graph.
            names: the operators whose filters are scored.
        """
        class_of = {
            channel: number
            for number, item in enumerate(channel_classes(graph).removable)
            for channel in item
        }
        numbers: dict[int | Channel, int] = {}
        of_filter = {}
        for name in names:
            value = graph.by_name[name].output
            channels = [(value, index) for index in range(graph.types[value].shape[1])]
            # Filters that must stay are units of their own.
            keys = [class_of.get(channel, channel) for channel in channels]
            of_filter[name] = torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])
        counted = frozenset(name for name in of_filter if _counts(graph, graph.by_name[name]))
        return Units(of_filter, counted, len(numbers))

    def joined(self, products: Mapping[str, Tensor]) -> Tensor:
        """[N, units], from the products [N, C] of operators: what goes with each unit."""
        first = next(iter(products.values()))
        result = first.new_zeros(len(first), self.count)
        for name in self.counted:
            result.index_add_(1, self.of_filter[name].to(first.device), products[name])
        return result


def _counts(graph: Graph, op: Op) -> bool:
    if isinstance(op, Conv | ConvTranspose) and op.groups > 1:
        return False
    reader = graph.only_consumer(op.output)
    if not isinstance(reader, LocalAttention2d) or op.output == reader.inputs[2]:
        return True
    return op.output == reader.inputs[0] and not loses_heads(graph, reader)


def _of_image(mode: TaylorMode, products: Tensor) -> Tensor:
    if mode is TaylorMode.ABSOLUTE:
        return products.abs()
    return products.square() if mode is TaylorMode.SQUARED else products


def taylor_scores(
    graph: Graph,
    batches: Iterable[tuple[Mapping[str, Tensor], Tensor | None]],
    options: TaylorOptions | None = None,
    losses: tuple[str, Losses] | None = None,
    device: torch.device | None = None,
) -> dict[str, Array]:
    """The scores of all filters that can go, by operator: float64 [C] each, small ones first.

    Args:
        graph: simplified, of stage FLOAT.
        batches: inputs of the float network [N, ...], and labels where there is a loss.
        options: how scores are computed.
        losses: see `TaylorScores`.
        device: where to compute; None: the CPU.

    Raises:
        UnsupportedError: torch cannot compute some operator.
        UsageError: there are no images, or no gradients.
    """
    found = TaylorScores(graph, options or TaylorOptions(), losses, device)
    for inputs, labels in batches:
        found.add(inputs, labels)
    return found.scores()


def by_channel(graph: Graph, scores: Mapping[str, Array]) -> dict[Channel, float]:
    """Scores by operator as scores of the channels of its output, for `GivenScores`."""
    return {
        (graph.by_name[name].output, index): float(value)
        for name, values in scores.items()
        for index, value in enumerate(values)
    }


def before_activations(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """The graph with activations of their own behind its filters, and where their sums are.

    Returns:
        The graph; and operator -> value, of those operators that have filters that can go.
    """
    removable = {value for item in channel_classes(graph).removable for value, _ in item}
    edit = Rewriter(graph)
    taps: dict[str, str] = {}
    for op in graph.ops:
        if not is_filtering(graph, op) or op.output not in removable:
            continue
        assert isinstance(op, Conv | ConvTranspose | MatMul)
        taps[op.name] = op.output
        if not op.activation.is_identity:
            taps[op.name] = edit.add_value(f"{op.output}.sum")
            edit.replace(op, *_split(op, taps[op.name], edit.fresh(f"{op.name}.activation")))
    return edit.finish(), taps


def _split(op: SumOp, value: str, name: str) -> tuple[SumOp, Rescale]:
    bare = dataclasses.replace(op, outputs=(value,), activation=IDENTITY)
    return bare, Rescale(name=name, inputs=(value,), outputs=op.outputs, activation=op.activation)


def scored_values(graph: Graph) -> tuple[str, ...]:
    """The outputs before sigmoid, softmax and decision, whose gradients are small or none.

    Raises:
        UsageError: no output has a gradient.
    """
    found = []
    for value in graph.outputs:
        while isinstance(op := graph.producers.get(value), ArgMax | Threshold | Softmax | Sigmoid):
            value = op.inputs[0]
        if graph.types[value].is_float and value in graph.producers:
            found.append(value)
    if not found:
        raise UsageError(f"no output of '{graph.name}' has a gradient; Taylor scores need one")
    return tuple(dict.fromkeys(found))
