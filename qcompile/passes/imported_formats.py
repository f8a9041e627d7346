"""What the plan says of values and weights whose formats came with the model."""

from __future__ import annotations

import dataclasses

from qcompile.budget_options import SIZE_BUDGETS, flag_of
from qcompile.errors import UsageError
from qcompile.format_options import DEFAULT_WIDTH
from qcompile.graph import Graph, Op
from qcompile.ops import WEIGHTED, FakeQuantize, Rescale
from qcompile.ops.fake_quantize import integer_type
from qcompile.options import CompileOptions
from qcompile.plan import Format, LayerPlan, Plan, Quantizer
from qcompile.prune_options import prunes
from qcompile.types import CodebookKind, TensorType

WIDEST = 31
INNER_BITS = 16
"""Of the values between those that have a grid of the model: it computes them in floats."""

COMPILE_FLOAT = "leave it out, or compile the float model"


def is_imported(kind: TensorType) -> bool:
    """Whether a float value, or a constant, is on a grid that came with the model."""
    return kind.quantization is not None and kind.quantization.imported is not None


def is_ternary(kind: TensorType) -> bool:
    """Whether a value has the codes -1, 0, 1 because the model's own function makes them."""
    book = kind.codebook
    return is_imported(kind) and book is not None and book.kind is CodebookKind.TERNARY


def has_grids(graph: Graph) -> bool:
    """Whether the model brought formats with it."""
    return any(isinstance(op, FakeQuantize) for op in graph.ops) or any(
        is_imported(kind) for kind in graph.types.values()
    )


def check_quantised(graph: Graph, options: CompileOptions) -> None:
    """
    Raises:
        UsageError: the options change weights, and the imported model has quantised ones.
    """
    if not has_grids(graph):
        return
    for flag, used in (("--prune", prunes(options)), *_searches(options)):
        if used:
            raise UsageError(f"{flag}: the model is quantised already; {COMPILE_FLOAT}")


def check_ternary(options: CompileOptions) -> None:
    """
    Raises:
        UsageError: the options search for widths, and the model's own functions say some of them.
    """
    for flag, used in _searches(options):
        if used:
            raise UsageError(
                f"{flag}: the activations of the model are ternary, and widths beside them are "
                f"not searched for; give --wbits, and abits of single layers in --config"
            )


def _searches(options: CompileOptions) -> tuple[tuple[str, bool], ...]:
    """Each flag that searches for widths, and whether it is used."""
    return (
        ("--mean-wbits", options.mean_wbits is not None),
        *((flag_of(name), getattr(options, name) is not None) for name in SIZE_BUDGETS),
    )


def imported_plan(graph: Graph, plan: Plan, options: CompileOptions) -> Plan:
    """The plan, with the formats of the model itself wherever it has them.

    The values between those have 16 bits unless the options name a width: other tools leave them
    float. Ternary values alone do not ask for that. Weights on no grid have the widths that the
    options say.

    Args:
        graph: a float graph after `AbsorbQuantizers`; one without grids changes nothing.
        plan: what the options say.
        options: for what contradicts the model.

    Raises:
        UsageError: the options want to quantise what is quantised already.
    """
    if not any(is_imported(kind) for kind in graph.types.values()):
        return plan
    _check(graph, options)
    inputs = {name: _planned(graph, name, layer) for name, layer in plan.inputs.items()}
    layers = {}
    kinds = [graph.output_type(op) for op in graph.ops]
    partly = any(is_imported(kind) and not is_ternary(kind) for kind in kinds)
    partly = partly and options.abits == DEFAULT_WIDTH
    for op in graph.ops:
        layer = _planned(graph, op.output, plan.layers[op.name])
        if isinstance(op, WEIGHTED) and is_imported(graph.types[op.inputs[1]]):
            layer = dataclasses.replace(layer, weights=None)
        own = layer.imported or options.layer_override(op.name).abits is not None
        inner = partly or _only_rounded_again(graph, op)
        if inner and not own and layer.output.bits < INNER_BITS:
            layer = dataclasses.replace(layer, output=Format(INNER_BITS, Quantizer.SCALED))
        layers[op.name] = layer
    return Plan(inputs, layers)


def _planned(graph: Graph, value: str, layer: LayerPlan) -> LayerPlan:
    kind = graph.types[value]
    if not is_imported(kind) or not kind.is_float:
        return layer
    assert kind.quantization is not None
    codes = integer_type(kind).integer
    return dataclasses.replace(
        layer,
        output=Format(min(codes.bits, WIDEST), Quantizer.SCALED),
        scale=kind.quantization.scale[0],
        signed=codes.signed,
        imported=True,
    )


def _only_rounded_again(graph: Graph, op: Op) -> bool:
    readers = graph.consumers[op.output]
    return (
        bool(readers)
        and op.output not in graph.outputs
        and all(
            isinstance(reader, Rescale) and is_imported(graph.output_type(reader))
            for reader in readers
        )
    )


def _check(graph: Graph, options: CompileOptions) -> None:
    """Refuses widths that nothing is left for."""
    weighted = [op for op in graph.ops if isinstance(op, WEIGHTED)]
    weights_done = {op.name for op in weighted if is_imported(graph.types[op.inputs[1]])}
    outputs_done = {op.name for op in graph.ops if is_imported(graph.output_type(op))}
    reals = [op for op in graph.ops if graph.output_type(op).is_float]
    said = f"the model is quantised already; {COMPILE_FLOAT}"
    if len(weights_done) == len(weighted) > 0:
        if options.wbits != DEFAULT_WIDTH:
            raise UsageError(f"--wbits {options.wbits}: {said}")
        if options.quantizer != "scaled":
            raise UsageError(f"--quantizer {options.quantizer}: {said}")
    if len(outputs_done) == len(reals) and options.abits != DEFAULT_WIDTH:
        raise UsageError(f"--abits {options.abits}: {said}")
    for override in options.layers:
        if override.pattern in weights_done and override.wbits is not None:
            raise UsageError(f"wbits of layer '{override.pattern}': {said}")
        own = (override.abits, override.scale, override.signed)
        if override.pattern in outputs_done and any(item is not None for item in own):
            raise UsageError(f"format of layer '{override.pattern}': {said}")
