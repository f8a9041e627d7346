"""Elements back to where maxima were."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qcompile.ops import MaxUnpool
from qcompile.types import Array, TensorType


def run(op: MaxUnpool, inputs: Sequence[Array], output: TensorType) -> Array:
    """Any element type; code 0 is zero."""
    x, indices = inputs
    result = np.zeros(output.shape, x.dtype if output.is_float else output.element.storage)
    places = list(np.indices(x.shape)[:2])
    count = math.prod(op.kernel)
    inside = indices < count
    # Of one axis: numpy 2.4 is wrong where a last axis is 1.
    flat = np.minimum(indices.astype(np.int64), count - 1).reshape(-1)
    within = [step.reshape(x.shape) for step in np.unravel_index(flat, op.kernel)]
    for axis, step in enumerate(within):
        origin = np.arange(x.shape[axis + 2]) * op.strides[axis] - op.pads_begin[axis]
        shape = [1] * x.ndim
        shape[axis + 2] = origin.size
        place = origin.reshape(shape) + step * op.dilations[axis]
        inside &= (place >= 0) & (place < op.spatial[axis])
        places.append(place)
    result[tuple(place[inside] for place in places)] = x[inside]
    return result
