"""One random network with everything that its properties are stated about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
import onnx

from qcompile.boundary import InputKind, InputSpec
from qcompile.feeds import float_feed
from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.options import CompileOptions, InputChoice, RangeMethod, Target
from qcompile.passes.base import run_passes
from qcompile.pipeline import simplify_passes
from qcompile.types import Array
from tests.random_networks import random_feeds, random_network
from tests.random_plans import random_options


@dataclasses.dataclass(frozen=True)
class Example:
    """A network on disk, its float forms, raw inputs, and options to compile it with."""

    path: Path
    model: onnx.ModelProto
    imported: Graph
    simplified: Graph
    feeds: Sequence[Mapping[str, Array]]
    pixels: bool
    calib: str
    options: CompileOptions

    @property
    def specs(self) -> dict[str, InputSpec]:
        kind = InputKind.UINT8 if self.pixels else InputKind.FLOAT32
        options = self.options
        return {
            name: InputSpec(kind, options.input_scale, options.input_mean, options.input_std)
            for name in self.imported.inputs
        }

    def float_feeds(self) -> list[dict[str, Array]]:
        return [float_feed(feed, self.specs) for feed in self.feeds]

    def uniform(self, bits: str) -> CompileOptions:
        """The same network at one width everywhere, for the simulator, with plain boundaries."""
        return CompileOptions(
            target=Target.SIM,
            wbits=bits,
            abits=bits,
            calib=self.calib,
            range_method=RangeMethod.MINMAX,
            input_kind=self.options.input_kind,
        )


def example(
    seed: int, folder: Path, benign: bool, layers: int = 6, attention: bool = False
) -> Example:
    """The network of a seed; its files go into `folder`."""
    rng = Random(seed)
    model = random_network(rng, benign, layers, attention)
    path = folder / "random.onnx"
    onnx.save(model, str(path))
    imported = import_model(path)
    simplified = run_passes(imported, simplify_passes(CompileOptions()))
    pixels = rng.random() < 0.6
    feeds = random_feeds(model, rng, 2, pixels)
    calib = folder / "calib.npz"
    np.savez(calib, **{name: np.concatenate([f[name] for f in feeds]) for name in feeds[0]})
    options = random_options(rng, simplified, pixels, str(calib))
    if benign:
        kind = InputChoice.UINT8 if pixels else InputChoice.FLOAT32
        options = CompileOptions(calib=str(calib), input_kind=kind)
    return Example(path, model, imported, simplified, feeds, pixels, str(calib), options)
