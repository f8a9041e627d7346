"""The plan that every run writes, as TOML that `--config` reads.

A written plan of `--effort nearest` holds the scale of every tensor, so a run from it needs no
images. With the other efforts channels are equalised: scales come from the images again, and a
scale in the file is one that the user gives to a tensor as the network has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qcompile.data_options import REPORTED_DATA
from qcompile.hdl_options import FOLD_FILE
from qcompile.onnx_options import ONNX_DEFAULTS, ONNX_TARGETS
from qcompile.options import CompileOptions, Target
from qcompile.prune_options import IMPORTANCE_FILE, PRUNE_DEFAULTS, prunes

if TYPE_CHECKING:
    from qcompile.plan import LayerPlan, Plan

PLAN_KEYS = (
    "target",
    "wbits",
    "abits",
    "quantizer",
    "first_last_bits",
    "calib_images",
    "effort",
    "range_method",
    "input_shapes",
    "input_kind",
    "input_scale",
    "input_mean",
    "input_std",
    "output_kind",
    "metric_threshold",
    "prune",
    *(key for key in PRUNE_DEFAULTS if key != "prune_importance"),
    "entry",
    "separate_weights",
    "mcu",
    "seed",
)
"""The options that decide what is emitted: a plan writes these, and no paths."""
HDL_KEYS = ("device", "clock", "target_fps", "multipliers", "fifos")
"""Those that decide what accelerator is emitted."""


def plan_text(
    options: CompileOptions,
    plan: Plan,
    comment: str = "",
    notes: Mapping[str, str] | None = None,
) -> str:
    """The resolved options and the plan as TOML that `--config` reads.

    Args:
        options: the resolved options; paths are left out.
        plan: formats, with the scales found by calibration.
        comment: a headline, e.g. the model's base name.
        notes: operator name -> a comment on its table.
    """
    import tomli_w

    lines = ["Resolved plan of qcompile; give it back with --config to repeat or edit the run."]
    lines += comment.splitlines()
    header = "".join(f"# {_printable(line)}\n" for line in lines)
    document: dict[str, Any] = {"options": options_table(options)}
    document["input"] = [
        _input_table(name, layer) for name, layer in plan.inputs.items() if not layer.imported
    ]
    document["layer"] = []
    for name, layer in plan.layers.items():
        table: dict[str, Any] = {"name": name}
        leading = layer.weights or layer.output
        if layer.weights is not None:
            table["wbits"] = layer.weights.width_name
        if layer.imported:
            # The model itself says what its output is.
            if layer.weights is not None:
                document["layer"].append({**table, "quantizer": leading.quantizer.value})
            continue
        table["abits"] = layer.output.width_name
        table["quantizer"] = leading.quantizer.value
        if layer.output.quantizer is not leading.quantizer:
            table["activation_quantizer"] = layer.output.quantizer.value
        if layer.scale is not None:
            table["scale"] = float(layer.scale)
        if layer.signed is not None:
            table["signed"] = layer.signed
        document["layer"].append(table)
    layers = document.pop("layer")
    parts = [header, tomli_w.dumps(document)]
    for table in layers:
        note = (notes or {}).get(table["name"])
        start = "" if note is None else f"# {_printable(note)}\n"
        parts.append(f"{start}[[layer]]\n{tomli_w.dumps(table)}")
    return "\n".join(parts)


def options_table(options: CompileOptions) -> dict[str, Any]:
    """The options that decide what is emitted, as plain values (also for the report)."""
    result: dict[str, Any] = {}
    keys: tuple[str, ...] = PLAN_KEYS
    if options.target is Target.HDL:
        keys = (*keys, *HDL_KEYS)
    if options.target.value in ONNX_TARGETS:
        keys = (*keys, *ONNX_DEFAULTS)
    plain = CompileOptions()
    where_changed = ("ternary_tanh", "taps", *REPORTED_DATA)
    keys += tuple(key for key in where_changed if getattr(options, key) != getattr(plain, key))
    for key in keys:
        value = getattr(options, key)
        if value is None:
            continue
        if key in PRUNE_DEFAULTS and (not prunes(options) or value == PRUNE_DEFAULTS[key]):
            continue
        if hasattr(value, "value"):
            value = value.value
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Mapping):
            value = {name: list(shape) for name, shape in value.items()}
        result[key] = value
    if options.target is Target.HDL and options.fold is not None:
        # Not the file that was given, but the one that is written beside the plan.
        result["fold"] = FOLD_FILE
    if options.prune_importance is not None:
        result["prune_importance"] = IMPORTANCE_FILE
    return result


def option_text(value: Any) -> str:
    """A value of `options_table` as people read it: 'image 1x1x184x144', '0.5, 0.4', 'no'."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _input_table(name: str, layer: LayerPlan) -> dict[str, Any]:
    table: dict[str, Any] = {
        "name": name,
        "abits": layer.output.width_name,
        "quantizer": layer.output.quantizer.value,
    }
    if layer.scale is not None:
        table["scale"] = float(layer.scale)
    if layer.signed is not None:
        table["signed"] = layer.signed
    return table


def _printable(text: str) -> str:
    """TOML comments may hold no control characters."""
    return "".join(char if char.isprintable() else "?" for char in text)
