"""What may be chosen about Taylor scores of filters. Without torch, for the command line."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from qcompile.errors import UsageError


class TaylorOf(enum.Enum):
    """What the gradient is taken of.

    RANDOM: the outputs in a random direction, another one for each image: no labels are needed, and
    the mean of the squares is what removing a filter changes anywhere in the outputs. OUTPUT: the
    sum of the outputs. LOSS: cross-entropy and soft Dice, with labels.
    """

    RANDOM = "random"
    OUTPUT = "output"
    LOSS = "loss"


class TaylorMode(enum.Enum):
    """How the products of the images become one score.

    PLAIN: the magnitude of their mean. ABSOLUTE: the mean of their magnitudes. SQUARED: the mean of
    their squares.
    """

    PLAIN = "plain"
    ABSOLUTE = "absolute"
    SQUARED = "squared"


@dataclass(frozen=True, slots=True)
class TaylorOptions:
    """How scores are computed.

    Attributes:
        of: what the gradient is taken of.
        mode: how the images are summed up.
        unit_gradients: each image's gradient at the outputs has length 1, so that images that the
            network has learned already count as much as the others.
        unit_layers: the scores of each layer have length 1.
        batch: images at a time.
        seed: of the random directions.
    """

    of: TaylorOf = TaylorOf.RANDOM
    mode: TaylorMode = TaylorMode.SQUARED
    unit_gradients: bool = True
    unit_layers: bool = False
    batch: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"--batch: {self.batch} is too small; use 1 or more")
