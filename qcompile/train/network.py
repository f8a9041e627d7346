"""A network that is trained as it will be compiled, and the way back into the compiler."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from qcompile.boundary import InputSpec
from qcompile.errors import GraphError, UsageError
from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import WEIGHTED, Dequantize, SumOp
from qcompile.options import CompileOptions, Effort, RangeMethod
from qcompile.passes.activation_ranges import Start
from qcompile.passes.base import run_passes
from qcompile.passes.calibrate import Calibration
from qcompile.passes.imported_formats import has_grids
from qcompile.passes.narrow_table_inputs import narrow_table_inputs
from qcompile.passes.quantize_activations import QuantizeActivations
from qcompile.passes.quantize_weights import weight_format
from qcompile.passes.resolved_plan import resolved_plan
from qcompile.plan import Format, Plan, Quantizer
from qcompile.quantization import PLAIN, Lowered, Quantization
from qcompile.train.graph_module import GraphModule
from qcompile.train.incremental_weights import IncrementalWeights
from qcompile.train.integer_module import IntegerModule
from qcompile.train.scales import Scales
from qcompile.train.weight_quantizer import WeightQuantizer
from qcompile.types import Array
from qcompile.types import Quantization as Grid


def check_float(graph: Graph) -> None:
    """
    Raises:
        UsageError: the model has formats of its own.
    """
    if has_grids(graph):
        raise UsageError(
            f"'{graph.name}' is quantised already; train the float model that it was made from"
        )


@dataclass(frozen=True)
class CompiledNetwork:
    """What the compiler makes of a network in training.

    Attributes:
        module: the integer network.
        codes: value of the trained graph -> value of the integer graph with its codes.
    """

    module: IntegerModule
    codes: Mapping[str, str]

    def run(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The codes of all values, and floats and classes where values have none: what
        `GraphModule.forward` takes as `exact`.

        Args:
            feeds: for each input what the compiled network takes (uint8 pixels or floats).
        """
        found = self.module(feeds, taps=tuple(self.codes.values()))
        return {value: found[name] for value, name in self.codes.items()}


@dataclass(frozen=True)
class TrainedNetwork:
    """A float graph, how it is to be quantised, and the module that trains both.

    Attributes:
        graph: simplified, of stage FLOAT, as it was before the training.
        plan: formats of its values.
        specs: how pixels become real numbers, for each input.
        options: of the compilation.
        typed: the graph with the types of its activations, as the module runs it.
        module: computes with the grids of weights and activations, in real numbers.
        factors: what channels of values were divided by before the training, where they were.
    """

    graph: Graph
    plan: Plan
    specs: Mapping[str, InputSpec]
    options: CompileOptions
    typed: Graph
    module: GraphModule
    factors: Mapping[str, Array] = field(default_factory=dict)

    def trained_graph(self) -> Graph:
        """The float graph with the parameters of now; weights lie on their grids."""
        edit = Rewriter(self.graph)
        for op in self.graph.ops:
            edit.replace(op, _with_parameters(self.graph, self.module, edit, op))
        return edit.finish()

    def trained_plan(self) -> Plan:
        """The plan with all signs, and the scales of now: it needs no calibration."""
        assert self.module.scales is not None
        numbers = self.module.scales.numbers()
        types = {
            value: kind
            if value not in numbers
            else dataclasses.replace(kind, quantization=Grid.per_tensor(numbers[value]))
            for value, kind in self.typed.types.items()
        }
        return resolved_plan(dataclasses.replace(self.typed, types=types), self.plan)

    def compile_options(self) -> CompileOptions:
        """The options under which the compiler takes weights and scales as they are."""
        return dataclasses.replace(self.options, effort=Effort.NEAREST, calib=None)

    def lowered(self) -> Lowered:
        """What the compiler makes of the parameters of now.

        Raises:
            GraphError: scales that the plan gives did not come out again (a bug of ours).
        """
        return self.lowered_by(self.trained_graph(), self.trained_plan())

    def lowered_by(self, graph: Graph, plan: Plan) -> Lowered:
        """The same of any graph with these values.

        Raises:
            GraphError: as above.
        """
        quantization = Quantization(graph, Calibration(), self.specs, self.compile_options())
        found = quantization.by(PLAIN, plan)
        assert self.module.scales is not None
        for value, scale in self.module.scales.numbers().items():
            grid = found.quantized.types[value].quantization
            if grid is None or grid.scale != (scale,):
                raise GraphError(f"value '{value}': was trained with scale {scale}, got {grid}")
        return found

    def compiled(self) -> CompiledNetwork:
        """The compiled network in torch, on the device of the module."""
        device = next(self.module.parameters()).device
        integer = self.lowered().integer
        return CompiledNetwork(IntegerModule(integer).to(device), _codes_of(self.typed, integer))


def make_trainable(
    graph: Graph,
    plan: Plan,
    specs: Mapping[str, InputSpec],
    options: CompileOptions,
    calibration: Calibration | None = None,
    learned_scales: bool = True,
    incremental: bool = False,
) -> TrainedNetwork:
    """The module of a simplified float graph.

    Args:
        graph: of stage FLOAT.
        plan: formats of its values.
        specs: how pixels become real numbers, for each input.
        options: of the compilation.
        calibration: what its values look like: scales start from there, unless the plan has them.
        learned_scales: whether scales take part in the training.
        incremental: weights that are to be powers of two are real numbers until they are frozen.

    Raises:
        UsageError: the model is quantised already, or no weights are to be frozen.
        UnsupportedError: torch cannot compute some operator.
    """
    check_float(graph)
    method: RangeMethod = options.range_method
    annotate = QuantizeActivations(plan, specs, calibration or Calibration(), method)
    typed = run_passes(graph, (annotate,))
    _, formats, narrowed = narrow_table_inputs(graph, plan)
    scales = Scales(typed, formats, narrowed, learned_scales)
    quantizers: dict[str, WeightQuantizer | IncrementalWeights] = {}
    for op in typed.ops:
        chosen = weight_format(plan, op) if isinstance(op, WEIGHTED) else None
        if chosen is None:
            continue
        weights = graph.constants[op.inputs[1]]
        if incremental and chosen.quantizer is Quantizer.POW2:
            quantizers[op.name] = IncrementalWeights(weights, chosen)
        else:
            quantizers[op.name] = WeightQuantizer(op, weights, chosen, learned_scales)
    if incremental and not any(isinstance(q, IncrementalWeights) for q in quantizers.values()):
        raise UsageError(
            "--portions freezes weights as powers of two, and no layer has them; add "
            "--quantizer pow2, or leave out --portions"
        )
    module = GraphModule(typed, scales, quantizers, _starts(typed, formats))
    module.eval()  # in training mode scales of wide values grow
    return TrainedNetwork(graph, plan, specs, options, typed, module)


def _codes_of(typed: Graph, integer: Graph) -> dict[str, str]:
    """Where the integer graph has each value of the graph before lowering."""
    result = {}
    for value in typed.activations():
        kind, name = typed.types[value], value
        producer = integer.producers.get(value)
        if kind.quantization is not None and isinstance(producer, Dequantize):
            name = producer.inputs[0]
        elif value in typed.inputs and f"{value}.codes" in integer.types:
            name = f"{value}.codes"
        found = integer.types.get(name)
        if found is None or found.shape != kind.shape:
            continue
        if found.is_float == (kind.quantization is None and kind.is_float):
            result[value] = name
    return result


def _starts(typed: Graph, formats: Mapping[str, Format]) -> dict[str, Start]:
    """Values whose codes begin elsewhere in every channel: those that a norm behind a ReLU writes.
    Where they only move, they keep the codes that they have."""
    found = {}
    for op in typed.ops:
        kind = typed.output_type(op)
        if kind.limits is None or not isinstance(op, SumOp) or op.activation.slope != (0.0,):
            continue
        found[op.output] = Start((), (), 1 << formats[op.output].bits)
    return found


def _with_parameters(graph: Graph, module: GraphModule, edit: Rewriter, op: Op) -> Op:
    if not isinstance(op, SumOp):
        return op
    inputs = list(op.inputs)
    for position, name in enumerate(op.inputs):
        if not graph.is_constant(name) or not module.is_trained(name):
            continue
        is_weight = position == 1 and isinstance(op, WEIGHTED)
        data = _numbers(module.weights(op) if is_weight else module.constant(name))
        kind = dataclasses.replace(graph.types[name], quantization=None)
        if len(graph.consumers[name]) == 1:
            edit.set_constant(name, data, kind)
        else:
            inputs[position] = edit.add_constant(f"{name}.{op.name}", data, kind)
    vectors = module.activation_vectors(op)
    old = op.activation
    activation = dataclasses.replace(
        old,
        slope=_vector(vectors.slope, old.slope),
        gain=_vector(vectors.gain, old.gain),
        shift=_vector(vectors.shift, old.shift),
    )
    return dataclasses.replace(op, inputs=tuple(inputs), activation=activation)


def _vector(trained: torch.Tensor | None, old: tuple[float, ...]) -> tuple[float, ...]:
    return old if trained is None else tuple(_numbers(trained).astype(np.float64).tolist())


def _numbers(data: torch.Tensor) -> Array:
    return np.asarray(data.detach().cpu().numpy(), dtype=np.float32)
