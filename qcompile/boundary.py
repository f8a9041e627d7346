"""How pixels at the model's boundary become the network's float input."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from qcompile.types import Array, Shape


class InputKind(enum.Enum):
    """What the compiled network takes: raw pixels, or the network's own float input."""

    UINT8 = "uint8"
    FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One graph input. A uint8 pixel p means the real number (p * scale - mean) / std.

    `scale`, `mean` and `std` have one entry, or one per channel of the input. They do not apply to
    float32 inputs, which are taken as they are.
    """

    kind: InputKind = InputKind.UINT8
    scale: tuple[float, ...] = (1 / 255,)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def is_plain(self) -> bool:
        """Pixels only need one scale: code = pixel is possible."""
        return len(self.scale) == 1 and self.mean == (0.0,) and self.std == (1.0,)

    def pixel_values(self) -> Array:
        """Real numbers of the 256 pixel values, float64 [1 or C, 256]."""
        count = max(len(self.scale), len(self.mean), len(self.std))
        scale, mean, std = (
            np.broadcast_to(np.asarray(values, dtype=np.float64), (count,))[:, None]
            for values in (self.scale, self.mean, self.std)
        )
        return np.asarray((np.arange(256)[None, :] * scale - mean) / std)


def channel_axis(shape: Shape) -> int:
    """Where a network input of this shape ([1, ...]) has its channels: axis 1, or the last.

    Images have fewer channels than rows and columns, so the smaller of the two axes is taken.
    """
    if len(shape) < 3:
        return len(shape) - 1
    return len(shape) - 1 if shape[-1] < shape[1] else 1


def channels(shape: Shape) -> int:
    """Number of channels of a network input of this shape."""
    return shape[channel_axis(shape)]
