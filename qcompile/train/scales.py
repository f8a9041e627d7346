"""The scales of activations: which values share one, and which of them may be learned."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qcompile.graph import Graph
from qcompile.ops import MOVEMENT, LinearResize, Softmax
from qcompile.plan import Format
from qcompile.train.tensors import round_half_up
from qcompile.types import IntType

NARROW = 8
MARGIN = 0.1
"""Room above what was seen."""


class Scales(nn.Module):
    """One scale for each group of values that the compiler gives one.

    A learned scale is `2**delta` times the one at the start; where scales are powers of two, delta
    is rounded. Values of more than `NARROW` bits have codes to spare: their scales are not learned,
    but grow with what is seen in training. Scales of network inputs, of softmax outputs and of
    formats that say their own stay as they are.
    """

    grown: Tensor

    def __init__(
        self,
        graph: Graph,
        formats: Mapping[str, Format],
        narrowed: Mapping[str, str],
        learned: bool = True,
    ) -> None:
        """
        Args:
            graph: of stage QUANTIZED; its types have the scales at the start.
            formats: of the values that the plan knows.
            narrowed: value -> the one that it has the range of in fewer steps.
            learned: whether any scale takes part in the training.
        """
        super().__init__()
        self.start = {
            value: kind.quantization.scale[0]
            for value in graph.activations()
            if (kind := graph.types[value]).quantization is not None
        }
        self._narrowed = {
            value: (source, self.start[value] / self.start[source])
            for value, source in narrowed.items()
            if value in self.start and source in self.start
        }
        self.root = _groups(graph, self.start)
        fixed = _fixed(graph, formats, self.start)
        stays = {self.root[value] for value in fixed}
        power = {
            self.root[value]
            for value, chosen in formats.items()
            if value in self.root and chosen.power_of_two_scale
        }
        self._power = power
        bits: dict[str, int] = {}
        for value, chosen in formats.items():
            if value in self.root:
                root = self.root[value]
                bits[root] = min(chosen.bits, bits.get(root, chosen.bits))
        free = [
            root
            for value, root in self.root.items()
            if value == root and root not in stays and value not in self._narrowed
        ]
        wide = [root for root in free if bits.get(root, 0) > NARROW]
        narrow = [root for root in free if root not in wide]
        self._place = {root: place for place, root in enumerate(narrow if learned else [])}
        self._wide = {root: place for place, root in enumerate(wide if learned else [])}
        self.delta = nn.Parameter(torch.zeros(len(self._place)))
        self.register_buffer("grown", torch.zeros(len(self._wide)))

    def forward(self, value: str) -> Tensor:
        """The scale of a value, a tensor of one entry."""
        if value in self._narrowed:
            source, ratio = self._narrowed[value]
            scale: Tensor = self(source)
            return scale * ratio
        root = self.root[value]
        start = torch.tensor(self.start[root], dtype=self.delta.dtype, device=self.delta.device)
        if root in self._wide:
            return start * torch.exp2(self.grown[self._wide[root]])
        if root not in self._place:
            return start
        delta = self.delta[self._place[root]]
        return start * torch.exp2(round_half_up(delta) if root in self._power else delta)

    @torch.no_grad()
    def observe(self, value: str, data: Tensor, element: IntType) -> None:
        """Lets the scale of a wide value grow until its codes hold `data`."""
        root = self.root[value]
        if root not in self._wide or value in self._narrowed or data.numel() == 0:
            return
        needed = float(data.max()) / element.high
        if element.low < 0:
            needed = max(needed, float(data.min()) / element.low)
        if math.isfinite(needed) and needed > float(self(root)):
            steps = math.log2(needed * (1 + MARGIN) / self.start[root])
            self.grown[self._wide[root]] = math.ceil(steps) if root in self._power else steps

    def get_extra_state(self) -> dict[str, float]:
        """Part of checkpoints: scales at the start are no tensors."""
        return dict(self.start)

    def set_extra_state(self, state: dict[str, float]) -> None:
        """See `get_extra_state`."""
        self.start = dict(state)

    @torch.no_grad()
    def numbers(self) -> dict[str, float]:
        """The scale of every value; those that are not learned are as precise as at the start."""
        result = {}
        for value in self.start:
            source, ratio = self._narrowed.get(value, (value, 1.0))
            root = self.root[source]
            moves = root in self._place or root in self._wide
            found = float(self(root)) if moves else self.start[root]
            result[value] = found * ratio
        return result


def _groups(graph: Graph, scales: Mapping[str, float]) -> dict[str, str]:
    """Value -> the first value of its group. Values that are only moved, or interpolated, share the
    scale of their source where it is the same at the start."""
    root = {value: value for value in scales}

    def find(value: str) -> str:
        while root[value] != value:
            value = root[value]
        return value

    for op in graph.ops:
        if not isinstance(op, (*MOVEMENT, LinearResize)) or op.output not in scales:
            continue
        for value in op.inputs:
            if value in scales and scales[value] == scales[op.output]:
                first, second = find(value), find(op.output)
                root[second] = first
    return {value: find(value) for value in scales}


def _fixed(
    graph: Graph, formats: Mapping[str, Format], scales: Mapping[str, float]
) -> frozenset[str]:
    given = {value for value, chosen in formats.items() if chosen.given_scale is not None}
    outputs = {op.output for op in graph.ops if isinstance(op, Softmax)}
    return frozenset(scales) & (given | outputs | set(graph.inputs))
