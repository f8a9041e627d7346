"""Dice of the compiled network while it is trained: the number that the compiler will report."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from qcompile.boundary import InputSpec
from qcompile.data.evaluation import EvaluationData
from qcompile.evaluate import Evaluation, Judging, Progress, evaluate
from qcompile.graph import Graph, Stage
from qcompile.sim.parallel import map_many
from qcompile.train.integer_module import IntegerModule
from qcompile.types import Array

BATCH = 8


@dataclass
class Validation:
    """Judges integer networks on one set of images.

    Attributes:
        graph: the float network that all of them come from; it is judged once.
        data: images and masks.
        specs: how pixels become real numbers.
        judging: rules of Dice.
        workers: processes of the simulator.
        device: of torch; the simulator is the faster one on a CPU.
    """

    graph: Graph
    data: EvaluationData
    specs: Mapping[str, InputSpec]
    judging: Judging
    workers: int | None
    device: torch.device
    known: Evaluation | None = None

    def dice(self, integer: Graph, progress: Progress | None = None) -> Evaluation:
        """Of the float network and of a compiled one."""
        simulate = map_many if self.device.type == "cpu" else self._on_device
        found = evaluate(
            self.graph,
            integer,
            self.data,
            self.specs,
            self.judging,
            self.workers,
            progress,
            self.known,
            simulate,
        )
        self.known = self.known or found
        return found

    def _on_device(
        self,
        graph: Graph,
        feeds: Iterable[Mapping[str, Array]],
        reduce: Callable[[dict[str, Array]], Array],
        workers: int | None = None,
        progress: Callable[[], None] | None = None,
    ) -> Iterator[Array]:
        if graph.stage is not Stage.INTEGER:
            yield from map_many(graph, feeds, reduce, workers=workers, progress=progress)
            return
        module = IntegerModule(graph).to(self.device)
        source = iter(feeds)
        while batch := list(itertools.islice(source, BATCH)):
            joined = {
                name: torch.cat([torch.from_numpy(feed[name]) for feed in batch]).to(self.device)
                for name in batch[0]
            }
            values = {name: data.cpu().numpy() for name, data in module(joined).items()}
            for place in range(len(batch)):
                yield reduce({name: data[place : place + 1] for name, data in values.items()})
                if progress is not None:
                    progress()
