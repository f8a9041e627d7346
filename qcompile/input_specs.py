"""How each network input's pixels become real numbers: as the options say, or the model itself."""

from __future__ import annotations

from qcompile.boundary import InputKind, InputSpec
from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.options import CompileOptions


def input_specs(graph: Graph, kind: InputKind, options: CompileOptions) -> dict[str, InputSpec]:
    """The inputs of an imported float graph, by name.

    An input that the model takes as uint8 or int8 codes has its own scale and zero point. Pixel p
    stands for the code p, or p - 128 where codes are signed.

    Raises:
        UsageError: the options say what the model says otherwise.
    """
    general = InputSpec(kind, options.input_scale, options.input_mean, options.input_std)
    return {name: _spec(graph, name, general) for name in graph.inputs}


def _spec(graph: Graph, name: str, general: InputSpec) -> InputSpec:
    grid, limits = graph.types[name].quantization, graph.types[name].limits
    if grid is None or limits is None:
        return general
    mean = -limits.low[0] * grid.scale[0]
    own = InputSpec(general.kind, grid.scale, (mean,))
    if general not in (own, InputSpec(general.kind)):
        raise UsageError(
            f"--input-scale, --input-mean, --input-std: the model says itself what the codes of "
            f"its input '{name}' mean; leave them out"
        )
    return own
