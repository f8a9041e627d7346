"""What can be budgeted, and which sum over layers tells beforehand how it will come out."""

from __future__ import annotations

from dataclasses import dataclass

from qcompile.options import CompileOptions, Target
from qcompile.search.cost import Term, bit_operations, ram_bits, weight_bytes
from qcompile.search.measured import Measured


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of `Measured`.

    Attributes:
        name: its field there.
        option: the field of the options that limits it.
        term: a sum over layers that it grows with in proportion, besides a constant; None where no
            width of 8 bits or less changes it.
        unit: for people.
    """

    name: str
    option: str
    term: Term | None
    unit: str

    def of(self, result: Measured) -> float | None:
        """The measured number; None where the target has none."""
        value = getattr(result, self.name)
        return None if value is None else float(value)


METRICS = (
    Metric("bytes", "max_bytes", weight_bytes, "bytes"),
    Metric("bops", "max_bops", bit_operations, "bit operations"),
    Metric("arena", "max_arena", None, "bytes of working memory"),
    Metric("luts", "max_luts", bit_operations, "LUTs"),
    Metric("ram_bits", "max_ram_bits", ram_bits, "RAM bits"),
)
ON_ACTIVATIONS = ("bops", "luts", "ram_bits")
"""Those that narrower activations make smaller, too."""


def budgeted_metrics(options: CompileOptions) -> tuple[Metric, ...]:
    """Those with a budget."""
    return tuple(metric for metric in METRICS if getattr(options, metric.option) is not None)


def leading_metric(options: CompileOptions) -> Metric:
    """What trade-offs are drawn over, and what is made small where no size is given."""
    given = [metric for metric in budgeted_metrics(options) if metric.term is not None]
    if given:
        return given[0]
    name = "ram_bits" if options.target is Target.HDL else "bytes"
    return next(metric for metric in METRICS if metric.name == name)
