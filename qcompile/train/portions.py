"""Incremental quantization: which share of the weights is frozen in which epoch.

Incremental network quantization (Zhou et al., 2017) turns weights into powers of two portion by
portion, the largest first. After each portion the others are trained on, with a learning rate that
starts anew, to make up for what the frozen ones lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from qcompile.errors import UsageError

EXAMPLE = "50,75,87.5,100"


@dataclass(frozen=True, slots=True)
class Portions:
    """Shares of each layer's weights that are frozen, one stage of the training after the other.

    Attributes:
        shares: rising, above 0; the last one is 1.
    """

    shares: tuple[float, ...]

    def stage(self, epoch: int, epochs: int) -> int:
        """Index of the share of an epoch; stages are equally long, but for one epoch.

        Args:
            epoch: 1..epochs.
            epochs: of the run, at least as many as shares.
        """
        return (epoch - 1) * len(self.shares) // epochs

    def first_epoch(self, stage: int, epochs: int) -> int:
        """The epoch in which a stage begins; for the stage after the last one, epochs + 1."""
        return -(-stage * epochs // len(self.shares)) + 1

    def text(self) -> str:
        """As `parse_portions` takes it."""
        return ",".join(f"{100 * share:g}" for share in self.shares)


def parse_portions(text: str) -> Portions | None:
    """'50,75,87.5,100' in percent; None for an empty text.

    Raises:
        UsageError: these are no rising shares that end with all weights.
    """
    if not text:
        return None
    try:
        percents = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--portions: '{text}' is not a list of percentages; use for example {EXAMPLE}"
        ) from None
    rises = all(low < high for low, high in zip([0.0, *percents], percents, strict=False))
    if not rises or percents[-1] != 100:
        raise UsageError(
            f"--portions: '{text}' must rise from above 0 and end with 100, all weights; use for "
            f"example {EXAMPLE}"
        )
    return Portions(tuple(percent / 100 for percent in percents))
