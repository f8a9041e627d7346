"""The table of contents of the compiler: what happens to a model, in order.

model.onnx -> importer -> float graph -> SIMPLIFY -> COMPRESS -> QUANTIZE -> LOWER -> back end
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from qcompile import __version__
from qcompile.backends.c.measure import Measurement
from qcompile.boundary import InputSpec
from qcompile.data import (
    Sources,
    load_sources,
    random_feeds,
    read_calibration,
    reading_options,
    shape_from_images,
)
from qcompile.energy_table import HOROWITZ, read_energy_table
from qcompile.errors import QCompileError, UsageError
from qcompile.evaluate import Evaluation, Judging, evaluate
from qcompile.feeds import float_feed, input_specs, integer_feed
from qcompile.graph import Graph, Stage
from qcompile.importer import declared_shapes, import_model
from qcompile.options import CompileOptions, Effort, InputChoice, TernaryTanhForm
from qcompile.passes.absorb_quantizers import AbsorbQuantizers
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.base import Dump, Pass, run_passes
from qcompile.passes.calibrate import Calibration, calibrate
from qcompile.passes.choose_kernels import ChooseKernels
from qcompile.passes.drop_no_ops import DropNoOps
from qcompile.passes.equalize_channels import EqualizeChannels
from qcompile.passes.fold_affine import FoldAffine
from qcompile.passes.fold_factors import FoldFactors
from qcompile.passes.fold_last_axis import FoldLastAxis
from qcompile.passes.fuse_activations import FuseActivations
from qcompile.passes.fuse_steps import FuseSteps
from qcompile.passes.harden_ternary_tanh import (
    HardenTernaryTanh,
    hardened_warnings,
    soft_betas,
)
from qcompile.passes.imported_formats import check_quantised, check_ternary, has_grids
from qcompile.passes.lower_to_integer import LowerToInteger
from qcompile.passes.mask_softmax import MaskSoftmax
from qcompile.passes.move_transposes import MoveTransposes
from qcompile.passes.place_tensors import PlaceTensors
from qcompile.passes.plan_buffers import PlanBuffers
from qcompile.passes.prune_filters import PruneFilters
from qcompile.passes.quantize_activations import QuantizeActivations
from qcompile.passes.quantize_weights import QuantizeWeights
from qcompile.passes.raise_channels import RaiseChannels
from qcompile.passes.recognise_gelu import RecogniseGelu
from qcompile.passes.recognise_group_norm import RecogniseGroupNorm
from qcompile.passes.recognise_layer_norm import RecogniseLayerNorm
from qcompile.passes.recognise_local_attention import RecogniseLocalAttention
from qcompile.passes.recognise_silu import RecogniseSilu
from qcompile.passes.recognise_ternary_tanh import RecogniseTernaryTanh
from qcompile.passes.refit_readers import RefitReaders
from qcompile.passes.resolved_plan import resolved_plan
from qcompile.passes.select_output import SelectOutput
from qcompile.passes.ternary_grids import TernaryGrids, has_ternary
from qcompile.plan import Plan
from qcompile.plan_file import option_text, options_table
from qcompile.printer import print_graph
from qcompile.prune_options import AUTO, prunes
from qcompile.pruning import compress, keep_gate, make_pruner, pruning_summary
from qcompile.quantization import Quantization, resolved_effort
from qcompile.report.attention import AttentionMaps, collect_attention
from qcompile.report.document import build_report
from qcompile.report.energy import energy_report
from qcompile.report.histograms import OutputHistograms, layer_histograms
from qcompile.report.layers import layer_rows, measure_fidelity
from qcompile.report.ternary import ZeroCounts, ternary_summary
from qcompile.result import CompileResult
from qcompile.search.candidate import Problem
from qcompile.search.found import Found
from qcompile.search.mean_bits import mean_bits_plan
from qcompile.search.run import search_widths
from qcompile.search.trade_off_table import trade_off_points
from qcompile.search.width_reasons import width_reasons
from qcompile.sim.attention_maps import attention_layers
from qcompile.targets import EmittedC, emit
from qcompile.types import Array, Shape

logger = logging.getLogger("qcompile")

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total)"""

VERIFY_INPUTS = 3
FIDELITY_IMAGES = 8


def simplify_passes(options: CompileOptions) -> tuple[Pass, ...]:
    """Float graph in, the same function with fewer operators out."""
    return (
        RecogniseLocalAttention(),
        RecogniseLayerNorm(),
        RecogniseGelu(),
        MaskSoftmax(),
        MoveTransposes(),
        SelectOutput(options.output_kind, options.metric_threshold),
        RecogniseGroupNorm(),
        RecogniseTernaryTanh(),
        FuseSteps(),
        FoldAffine(into_weights=not options.takes_weights_as_trained),
        FoldLastAxis(into_weights=not options.takes_weights_as_trained),
        FoldFactors(),
        RecogniseSilu(),
        FuseActivations(),
        DropNoOps(),
    )


def ternary_passes(graph: Graph, options: CompileOptions) -> tuple[Pass, ...]:
    """Ternary activations become roundings to three codes; none where there are none."""
    hardens = options.ternary_tanh is TernaryTanhForm.HARD and bool(soft_betas(graph))
    if not hardens and not has_ternary(graph):
        return ()
    return (*((HardenTernaryTanh(),) if hardens else ()), TernaryGrids(), FuseActivations())


def import_passes(graph: Graph) -> tuple[Pass, ...]:
    """The formats that a quantised model brought, if it did, become types."""
    return (AbsorbQuantizers(), RaiseChannels()) if has_grids(graph) else ()


def list_passes() -> tuple[tuple[str, str], ...]:
    """Name and purpose of every pass, in order, up to those of the C back end."""
    options = CompileOptions()
    quantize = (EqualizeChannels, QuantizeActivations, QuantizeWeights, LowerToInteger)
    return (
        *(_described(item.name, type(item)) for item in simplify_passes(options)),
        _described(PruneFilters.name, PruneFilters),
        _described(RefitReaders.name, RefitReaders),
        _described(HardenTernaryTanh.name, HardenTernaryTanh),
        _described(TernaryGrids.name, TernaryGrids),
        _described(AbsorbQuantizers.name, AbsorbQuantizers),
        _described(RaiseChannels.name, RaiseChannels),
        _described("assign-formats", assign_formats),
        _described("calibrate", calibrate),
        *(_described(item.name, item) for item in quantize),
        _described("choose-kernels", ChooseKernels),
        _described("place-tensors", PlaceTensors),
        _described("plan-buffers", PlanBuffers),
    )


def _described(name: str, item: object) -> tuple[str, str]:
    return name, (item.__doc__ or "").split("\n")[0]


def compile_model(
    model: Path | str, options: CompileOptions | None = None, progress: Progress | None = None
) -> CompileResult:
    """Compiles one ONNX model. Nothing is written: see `CompileResult.write`.

    Args:
        model: path of the ONNX file.
        options: what the command line's flags say; defaults if None.
        progress: told about the long stages.

    Raises:
        QCompileError: the model, the data or the options are wrong; the message is one line, and
            its `dumps` are those of the passes that did run.
    """
    options = options or CompileOptions()
    run = _Run(options.dump_ir is not None, progress or (lambda stage, done, total: None))
    try:
        result = _compile(Path(model), options, run)
        if options.prune == AUTO:
            quiet = _Run(False, lambda stage, done, total: None)
            result = keep_gate(
                options,
                result,
                lambda tried: _compile(Path(model), tried, quiet),
                lambda found: _compile(Path(model), found, run),
                run.stage("prune"),
            )
        return result
    except QCompileError as error:
        error.dumps = run.dumps
        raise


def _compile(model: Path, options: CompileOptions, run: _Run) -> CompileResult:
    table = HOROWITZ
    if options.energy_table is not None:
        table = read_energy_table(options.energy_table)
    with run.timed("import"):
        shapes = input_shapes(model, options)
        imported = import_model(model, shapes)
        source = load_sources(imported, options)
    # What the data decided goes into the plan, which repeats the run without them.
    options = replace(
        options,
        input_kind=InputChoice(source.kind.value),
        input_shapes={name: imported.types[name].shape for name in imported.inputs},
        effort=resolved_effort(options, imported, source.origin == "data"),
    )
    specs = input_specs(imported, source.kind, options)
    check_quantised(imported, options)
    with run.timed("simplify"):
        simplified = run_passes(imported, simplify_passes(options), run.dump)
    check_taps(simplified, options)
    details: dict[str, object] = {}
    compressed = simplified
    if prunes(options):
        with run.timed("prune"):
            found = compress(
                make_pruner(
                    options,
                    model,
                    imported,
                    simplified,
                    lambda: [float_feed(feed, specs) for feed in source.feeds],
                    run.stage("importance"),
                ),
                simplified,
                options,
                lambda pruned, known: _evaluate(
                    simplified, pruned, source, specs, options, run, known
                ),
                run.stage("prune"),
                run.dump,
            )
            compressed, options = found.graph, found.options
            details["pruning"] = pruning_summary(simplified, compressed, found.trials)
    ternary = ternary_passes(compressed, options)
    hardened = {} if options.ternary_tanh is TernaryTanhForm.SOFT else soft_betas(compressed)
    compressed = run_passes(compressed, ternary, run.dump)
    if ternary:
        check_ternary(options)
        effort = resolved_effort(options, compressed, source.origin == "data")
        options = replace(options, effort=effort)
    network = run_passes(compressed, import_passes(compressed), run.dump)
    plan = assign_formats(network, options)
    with run.timed("calibrate"):
        calibration = _calibration(
            compressed, plan, source, specs, options.effort, options.seed, run
        )
    quantization = Quantization(network, calibration, specs, options, source.feeds)
    if options.mean_wbits is not None:
        with run.timed("widths"):
            plan = mean_bits_plan(quantization, plan, source.feeds, run.stage("widths"))
    searched: Found | None = None
    if options.budgeted and not has_grids(compressed):
        with run.timed("search"):
            problem = Problem(quantization, simplified, source.feeds, source.evaluation)
            searched = search_widths(problem, run.stage("widths"), run.stage("search"))
            plan = searched.chosen.candidate.plan
    with run.timed("quantize"):
        lowered = quantization.lowered(plan, run.stage("quantize"), run.dump)
        real, quantized, integer = lowered.real, lowered.quantized, lowered.integer
        if has_grids(compressed):
            real = compressed  # which rounds where the model does
        plan = resolved_plan(quantized, plan, scales=real is network)

    feeds = [integer_feed(feed, integer, specs) for feed in source.feeds]
    with run.timed("emit"):
        sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
        emitted = emit(integer, options, _metadata(model, sha256, options), feeds, quantized, specs)
    if options.verify:
        with run.timed("verify"):
            inputs = [*feeds[:VERIFY_INPUTS], *random_feeds(integer, options.seed)]
            details |= emitted.verify(inputs)
    attention: AttentionMaps | None = None
    if options.taps is not None:
        check_taps(integer, options)
        with run.timed("attention"):
            attention = collect_attention(
                integer, feeds, source.feeds[0], source.origin == "generated"
            )
    measured: Measurement | None = None
    if isinstance(emitted, EmittedC) and options.measure:
        with run.timed("measure"):
            measured = emitted.measure(feeds[0])
    with run.timed("evaluate"):
        evaluation = _evaluate(simplified, integer, source, specs, options, run)
    with run.timed("report"):
        images = source.feeds[:FIDELITY_IMAGES]
        step = run.stage("compare")
        outputs, zeros = OutputHistograms(integer), ZeroCounts()

        def observe(value: str, reals: Array, codes: Array) -> None:
            outputs.add(value, reals, codes)
            zeros.add(value, codes)

        fidelity = measure_fidelity(real, integer, images, specs, step, observe)
        report = build_report(
            version=__version__,
            model=model.name,
            sha256=sha256,
            options=options,
            float_graph=compressed,
            integer_graph=integer,
            layers=layer_rows(compressed, integer, fidelity, emitted.layer_bytes),
            calibration=source.origin if calibration.images else "plan",
            calibration_images=calibration.images,
            weight_bytes_emitted=emitted.constant_bytes,
            arena_bytes=emitted.arena_bytes,
            evaluation=evaluation,
            verified=True if options.verify else None,
            warnings=hardened_warnings(hardened),
            details=details,
            hardware=emitted.hardware,
            footprint=emitted.footprint,
            histograms=layer_histograms(real, integer, outputs.result()),
            trade_off=() if searched is None else trade_off_points(searched),
            width_reasons=() if searched is None else width_reasons(searched),
            ternary=ternary_summary(integer, zeros, hardened),
            attention=attention,
            energy=energy_report(integer, table, measured),
        )
    return CompileResult(
        options,
        compressed,
        integer,
        plan,
        emitted.artifacts,
        report,
        run.timings,
        report.verified,
        run.dumps,
        searched,
    )


@dataclass
class _Run:
    """What one compilation collects on its way: timings and dumps of the graph."""

    dumping: bool
    progress: Progress
    timings: dict[str, float] = field(default_factory=dict)
    dumps: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        logger.info("%s: %.2f s", stage, seconds)
        self.timings[stage] = self.timings.get(stage, 0.0) + seconds

    def stage(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(name, done, total)

    @property
    def dump(self) -> Dump | None:
        return self._keep if self.dumping else None

    def _keep(self, name: str, graph: Graph) -> None:
        if name == "start" and self.dumps:
            return  # the result of the passes before
        self.dumps[f"{len(self.dumps):02d}-{name}.txt"] = print_graph(graph)


def check_taps(graph: Graph, options: CompileOptions) -> None:
    """
    Raises:
        UsageError: attention maps are asked for and there is no attention (in integers).
    """
    if options.taps is None or attention_layers(graph):
        return
    if graph.stage is Stage.INTEGER:
        raise UsageError(
            "--taps attention: all attention of the network is computed in floats; give its layers "
            "fewer than 32 bits, or leave --taps out"
        )
    raise UsageError(
        "--taps attention: the network has no attention (no LocalAttention2d, no Softmax whose "
        "result a product of two computed tensors reads, and no Sigmoid over pixels that a feature "
        "map is multiplied with); leave --taps out"
    )


def input_shapes(model: Path, options: CompileOptions) -> Mapping[str, Shape]:
    """The given shapes; dynamic axes of a single input may come from the calibration images."""
    if options.input_shapes or options.calib is None:
        return options.input_shapes
    declared = declared_shapes(model)
    if len(declared) != 1:
        return options.input_shapes
    ((name, sizes),) = declared.items()
    if all(size is not None for size in sizes[1:]) or len(sizes) < 3:
        return options.input_shapes
    images = read_calibration(options.calib, {name: sizes[1] or 1}, reading_options(options))[name]
    shape = shape_from_images(images[0].load()[None], sizes)
    return options.input_shapes if shape is None else {name: shape}


def _calibration(
    graph: Graph,
    plan: Plan,
    source: Sources,
    specs: Mapping[str, InputSpec],
    effort: Effort,
    seed: int,
    run: _Run,
) -> Calibration:
    """What the float network's tensors look like; nothing where the plan has every scale, and
    there are no images to make up for rounding errors with."""
    planned = [op for op in graph.ops if op.name in plan.layers]
    layers = [plan.layers[op.name] for op in planned if graph.output_type(op).is_float]
    layers += plan.inputs.values()
    complete = all(layer.output.is_float or layer.scale is not None for layer in layers)
    if complete and effort is Effort.NEAREST:
        return Calibration()
    feeds = [float_feed(feed, specs) for feed in source.feeds]
    return calibrate(graph, feeds, seed, run.stage("calibrate"))


def _metadata(model: Path, sha256: str, options: CompileOptions) -> dict[str, str]:
    """What the emitted files say of their origin: no paths, no times."""
    table = options_table(options)
    said = "; ".join(f"{key} {option_text(value)}" for key, value in table.items())
    return {"qcompile": __version__, "model": model.name, "sha256": sha256, "options": said}


def _evaluate(
    float_graph: Graph,
    integer_graph: Graph,
    source: Sources,
    specs: Mapping[str, InputSpec],
    options: CompileOptions,
    run: _Run,
    known: Evaluation | None = None,
) -> Evaluation | None:
    if source.evaluation is None:
        return None
    return evaluate(
        float_graph,
        integer_graph,
        source.evaluation,
        specs,
        Judging.of(options),
        options.workers or None,
        run.stage("evaluate"),
        known,
    )
