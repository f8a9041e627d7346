"""Random networks in training, as the compiler's own property tests draw them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from qcompile.feeds import float_feed, integer_feed
from qcompile.graph import Graph
from qcompile.options import CompileOptions, OutputKind, Target
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.base import run_passes
from qcompile.passes.calibrate import calibrate
from qcompile.pipeline import simplify_passes
from qcompile.train.network import TrainedNetwork, make_trainable
from qcompile.types import Array
from tests.properties.compiled import Example, example


def options_for(found: Example) -> CompileOptions:
    """The random widths and quantizers, without what training has nothing to do with."""
    return dataclasses.replace(
        found.options,
        target=Target.SIM,
        prune=0.0,
        prune_method="auto",
        mcu=False,
        output_kind=OutputKind.AUTO,
        layers=(),
    )


def random_training(seed: int, folder: Path) -> tuple[Example, TrainedNetwork]:
    """A random network whose parameters were moved, as if it had been trained."""
    found = example(seed, folder, benign=False)
    options = options_for(found)
    graph = run_passes(found.imported, simplify_passes(options))
    calibration = calibrate(graph, found.float_feeds())
    plan = assign_formats(graph, options)
    network = make_trainable(graph, plan, found.specs, options, calibration)
    shake(network, seed)
    return found, network


@torch.no_grad()
def shake(network: TrainedNetwork, seed: int, amount: float = 0.1) -> None:
    """Moves every parameter a little, at random."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.module.parameters():
        if parameter.numel():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += amount * (parameter.abs().mean() + amount) * noise


def as_tensors(feed: Mapping[str, Array], double: bool = False) -> dict[str, torch.Tensor]:
    tensors = {name: torch.from_numpy(data.copy()) for name, data in feed.items()}
    return {name: data.double() for name, data in tensors.items()} if double else tensors


def both_feeds(
    network: TrainedNetwork, integer: Graph, feeds: Sequence[Mapping[str, Array]]
) -> list[tuple[dict[str, Array], dict[str, Array]]]:
    """For each image what the module takes, and what the compiled network takes."""
    return [
        (float_feed(feed, network.specs), integer_feed(feed, integer, network.specs))
        for feed in feeds
    ]


def is_all_integer(graph: Graph) -> bool:
    """No float islands: floats are inputs and outputs alone."""
    ends = {*graph.inputs, *graph.outputs}
    return not any(
        graph.types[value].is_float for value in graph.activations() if value not in ends
    )
