"""The units of parameters: what equalisation multiplied them by before the training.

Equalised values are counted in steps of their scale, so that weights behind values of 16 bits are a
thousandth of what they were, and gains a thousand times as large. Adam's steps have the size of the
learning rate whatever the gradient: without units, a rate that suits the float network would move
the first too far and the others not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from qcompile.ops import Affine, Conv, ConvTranspose, MatMul
from qcompile.passes.fold_affine import scaled_inputs, scaled_outputs
from qcompile.train.graph_module import GraphModule
from qcompile.types import Array


def parameter_units(
    module: GraphModule, factors: Mapping[str, Array]
) -> list[tuple[nn.Parameter, Tensor]]:
    """Parameters that equalisation scaled, and for each entry what it multiplied it by.

    Args:
        module: what is trained.
        factors: what the channels of a value were divided by (`EqualizeChannels.factors`).
    """
    found: dict[int, tuple[nn.Parameter, Tensor]] = {}
    for op in module.graph.ops:
        if not isinstance(op, Conv | ConvTranspose | MatMul | Affine):
            continue
        read, written = factors.get(op.inputs[0]), factors.get(op.output)
        if read is None and written is None:
            continue
        for parameter, unit in _units(module, op, read, written):
            found[id(parameter)] = parameter, torch.from_numpy(unit).to(parameter)
    return list(found.values())


def _units(
    module: GraphModule,
    op: Conv | ConvTranspose | MatMul | Affine,
    read: Array | None,
    written: Array | None,
) -> Iterator[tuple[nn.Parameter, Array]]:
    """As `equalize_channels` moves factors: what is written is divided behind the activation's gain
    and shift, if it has them, else in weights and bias."""
    vectors = module.activation_vectors(op)
    parts = [part for part in (vectors.gain, vectors.shift) if isinstance(part, nn.Parameter)]
    inverse = None if written is None else 1 / written
    if inverse is not None:
        for part in parts:
            yield part, np.broadcast_to(inverse, tuple(part.shape)).copy()
    weights, *biases = (module.constant(name) for name in op.inputs[1:])
    unit = np.ones(tuple(weights.shape))
    if isinstance(op, Affine):
        unit = unit if read is None else unit * read
        unit = unit if inverse is None or parts else unit * inverse
    else:
        unit = unit if read is None else scaled_inputs(op, unit, read)
        unit = unit if inverse is None or parts else scaled_outputs(op, unit, inverse)
    if isinstance(weights, nn.Parameter):
        yield weights, unit
    for bias in biases:
        if isinstance(bias, nn.Parameter) and inverse is not None and not parts:
            yield bias, inverse


@torch.no_grad()
def step_in_units(
    optimizer: torch.optim.Optimizer, units: list[tuple[nn.Parameter, Tensor]]
) -> None:
    """A step of an optimizer whose updates do not depend on the parameters' size or the gradients'
    (Adam without decay of weights), with the updates of some parameters in units of their own."""
    before = [parameter.clone() for parameter, _ in units]
    for parameter, _ in units:
        parameter.zero_()
    optimizer.step()
    for (parameter, unit), data in zip(units, before, strict=True):
        parameter.mul_(unit).add_(data)
