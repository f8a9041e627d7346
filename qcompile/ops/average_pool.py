"""Mean over a sliding window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.ops.geometry import sliding_shape
from qcompile.ops.sum_op import SumOp
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePool(SumOp):
    """Input [1, C, *spatial], output [1, C, *spatial].

    The divisor of a window is the number of its positions inside the input, or inside input and
    padding with `count_include_pad`; positions beyond the padding (ceil_mode) never count.
    Integer form: acc = (sum of codes) * (common / divisor), where `common` is the least common
    multiple of all divisors, so that one multiplier serves interior and border exactly.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: bool = False
    count_include_pad: bool = False

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x = shapes[0]
        spatial = sliding_shape(
            self,
            x,
            self.kernel,
            self.strides,
            self.dilations,
            self.pads_begin,
            self.pads_end,
            self.ceil_mode,
        )
        return (*x[:2], *spatial)

    def divisors(
        self, spatial_in: Sequence[int], spatial_out: Sequence[int]
    ) -> tuple[tuple[int, ...], ...]:
        """For each axis the count of each output position; a window's divisor is their product."""
        counts = []
        for axis, (size, positions) in enumerate(zip(spatial_in, spatial_out, strict=True)):
            low, high = 0, size
            if self.count_include_pad:
                low, high = -self.pads_begin[axis], size + self.pads_end[axis]
            starts = [p * self.strides[axis] - self.pads_begin[axis] for p in range(positions)]
            counts.append(
                tuple(
                    max(
                        1,
                        sum(
                            low <= start + k * self.dilations[axis] < high
                            for k in range(self.kernel[axis])
                        ),
                    )
                    for start in starts
                )
            )
        return tuple(counts)

    def common_divisor(self, spatial_in: Sequence[int], spatial_out: Sequence[int]) -> int:
        """Least common multiple of the divisors of all windows."""
        return math.prod(math.lcm(*counts) for counts in self.divisors(spatial_in, spatial_out))

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        shape = types[0].shape
        common = self.common_divisor(shape[2:], self.infer_shape([shape])[2:])
        return types[0].codes.union(Range(0, 0)).scaled(common)
