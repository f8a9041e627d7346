"""The TOML form of the options and of formats: what `--config` reads.

    [options]            one key a flag, `-` written `_`
    [[input]]            name, abits, quantizer, scale, signed
    [[layer]]            name (or pattern), wbits, abits, quantizer, scale, signed

Every run writes such a file itself: `plan_file`.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qcompile.budget_options import SEARCH_DEFAULTS, SIZE_BUDGETS
from qcompile.data_options import DATA_CHOICES, DATA_PATHS, DATA_TEXTS
from qcompile.errors import UsageError
from qcompile.format_options import without_aliases
from qcompile.hdl_options import HDL_DEFAULTS, FifoPolicy
from qcompile.onnx_options import ONNX_DEFAULTS, ONNX_TARGETS, OnnxInput, OnnxWeights
from qcompile.options import (
    CompileOptions,
    Effort,
    InputChoice,
    LayerOverride,
    OutputKind,
    RangeMethod,
    Taps,
    Target,
    TernaryTanhForm,
    parse_numbers,
    parse_target,
)
from qcompile.prune_options import (
    PRUNE_DEFAULTS,
    PruneConstants,
    PruneMethod,
    PruneScope,
)

MAX_CONFIG_BYTES = 16 << 20

_PATHS = (
    *DATA_PATHS,
    "output",
    "dump_ir",
    "report",
    "fold",
    "prune_importance",
    "search_cache",
    "energy_table",
)
_WIDTHS = ("wbits", "abits", "first_last_bits")
_NUMBERS = ("input_scale", "input_mean", "input_std")
_INTEGERS = ("calib_images", "seed", "workers", "multipliers", "prune_multiple")
_FLOATS = (
    "metric_threshold",
    "min_dice",
    "max_dice_drop",
    "mean_wbits",
    "clock",
    "target_fps",
)
OPTION_KEYS = (
    "target",
    *_WIDTHS,
    "quantizer",
    *_NUMBERS,
    "input_shapes",
    "input_kind",
    "output_kind",
    "effort",
    "range_method",
    "ternary_tanh",
    "data_keys",
    *DATA_CHOICES,
    *DATA_TEXTS,
    "object_metrics",
    "entry",
    "separate_weights",
    "mcu",
    "verify",
    "taps",
    "measure",
    "device",
    "fifos",
    "synth",
    *ONNX_DEFAULTS,
    *(key for key in SEARCH_DEFAULTS if key not in _PATHS),
    "prune",
    *(key for key in PRUNE_DEFAULTS if key not in (*_INTEGERS, *_PATHS)),
    *_INTEGERS,
    *_FLOATS,
    *_PATHS,
)
LAYER_KEYS = ("name", "wbits", "abits", "quantizer", "activation_quantizer", "scale", "signed")
INPUT_KEYS = ("name", "abits", "quantizer", "scale", "signed")


def load_config(path: Path) -> dict[str, Any]:
    """The fields of `CompileOptions` that a TOML file sets; files in it are relative to its folder.

    Raises:
        UsageError: the file cannot be read, is not TOML, or has unknown keys or wrong values.
    """
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"--config {path}: is not a regular file; give a TOML file")
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UsageError(f"--config {path}: larger than {MAX_CONFIG_BYTES} bytes")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"--config {path}: is not valid TOML ({error})") from None
    where = f"--config {path.name}"
    _check_keys(document, ("options", "layer", "input"), where)
    fields = _options(document.get("options", {}), f"{where} [options]", path.parent)
    fields["layers"] = _overrides(document.get("layer", []), LAYER_KEYS, f"{where} [[layer]]")
    fields["inputs"] = _overrides(document.get("input", []), INPUT_KEYS, f"{where} [[input]]")
    return fields


def resolve(flags: Mapping[str, Any]) -> CompileOptions:
    """Flags over the TOML file they name over the defaults.

    Args:
        flags: fields of `CompileOptions` as parsed from the command line; None means not given.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    base: dict[str, Any] = {}
    if given.get("config") is not None:
        base = load_config(given["config"])
        if "input_shapes" in base and "input_shapes" in given:
            given["input_shapes"] = {**base["input_shapes"], **given["input_shapes"]}
        base = _for_target(base, given)
    return CompileOptions(**{**base, **given})


def _for_target(base: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a file; the plan of an accelerator or ONNX model also serves for another
    target, without what is about hardware or the model."""
    before = base.get("target")
    after = given.get("target", before)
    dropped: set[str] = set()
    if before is Target.HDL and after is not Target.HDL:
        dropped |= set(HDL_DEFAULTS)
    if before is not None and before is not after and before.value in ONNX_TARGETS:
        dropped |= set(ONNX_DEFAULTS)
    return {name: value for name, value in base.items() if name not in dropped}


def _options(table: Any, where: str, folder: Path) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError(f"{where}: must be a table")
    table = without_aliases(table, where)
    _check_keys(table, OPTION_KEYS, where)
    fields: dict[str, Any] = {}
    for key, value in table.items():
        fields[key] = _option(key, value, f"{where} {key}", folder)
    return fields


def _option(key: str, value: Any, where: str, folder: Path) -> Any:
    if key == "target":
        return parse_target(_text(value, where))
    if key in _WIDTHS:
        return _width(value, where)
    if key in _NUMBERS:
        if isinstance(value, str):
            return parse_numbers(value, where)
        values = value if isinstance(value, list) else [value]
        return tuple(_number(item, where) for item in values)
    if key == "input_shapes":
        if not isinstance(value, dict):
            raise UsageError(f"{where}: must be a table of name = [1, 1, 256, 256]")
        return {
            name: tuple(_integer(size, where) for size in _list(shape, where))
            for name, shape in value.items()
        }
    for name, kind in (
        ("input_kind", InputChoice),
        ("output_kind", OutputKind),
        ("effort", Effort),
        ("range_method", RangeMethod),
        ("ternary_tanh", TernaryTanhForm),
        ("taps", Taps),
        ("fifos", FifoPolicy),
        ("onnx_input", OnnxInput),
        ("onnx_weights", OnnxWeights),
        ("prune_method", PruneMethod),
        ("prune_scope", PruneScope),
        ("prune_constants", PruneConstants),
    ):
        if key == name:
            allowed = [item.value for item in kind]
            if value not in allowed:
                raise UsageError(f"{where}: '{value}' is unknown; use {', '.join(allowed)}")
            return kind(value)
    if key in ("prune", "prune_flops", "prune_bytes", *SIZE_BUDGETS):
        return _text(value, where) if isinstance(value, str) else _number(value, where)
    if key == "prune_exclude":
        return tuple(_text(item, where) for item in _list(value, where))
    if key == "data_keys":
        keys = tuple(_text(item, where) for item in _list(value, where))
        if len(keys) not in (2, 3):
            raise UsageError(
                f"{where}: needs the keys of the images and of the labels, perhaps of the cases"
            )
        return keys
    if key in DATA_CHOICES:
        kinds = DATA_CHOICES[key]
        allowed = [item.value for item in kinds]
        if value not in allowed:
            raise UsageError(f"{where}: '{value}' is unknown; use {', '.join(allowed)}")
        return kinds(value)
    if key == "tile_halo" and isinstance(value, int):
        return str(_integer(value, where))
    if key in ("verify", "separate_weights", "mcu", "synth", "object_metrics", "prune_refit"):
        return _boolean(value, where)
    if key in _INTEGERS:
        return _integer(value, where)
    if key in _FLOATS:
        return _number(value, where)
    if key in _PATHS:
        path = folder / _text(value, where)
        return str(path) if key in DATA_PATHS else path
    return _text(value, where)


def _overrides(tables: Any, allowed: tuple[str, ...], where: str) -> tuple[LayerOverride, ...]:
    result = []
    for table in _list(tables, where):
        if not isinstance(table, dict):
            raise UsageError(f"{where}: must be an array of tables")
        table = without_aliases(table, where)
        _check_keys(table, allowed, where)
        if "name" not in table:
            raise UsageError(f"{where}: every entry needs a name (or pattern)")
        fields: dict[str, Any] = {"pattern": _text(table["name"], f"{where} name")}
        for key in table.keys() - {"name"}:
            value, place = table[key], f"{where} '{fields['pattern']}' {key}"
            if key in ("wbits", "abits"):
                fields[key] = _width(value, place)
            elif key == "scale":
                fields[key] = _number(value, place)
            elif key == "signed":
                fields[key] = _boolean(value, place)
            else:
                fields[key] = _text(value, place)
        result.append(LayerOverride(**fields))
    return tuple(result)


def _check_keys(table: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise UsageError(f"{where}: unknown key '{key}'; allowed are {', '.join(allowed)}")


def _width(value: Any, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, where)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise UsageError(f"{where}: must be text in quotes, not {value!r}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{where}: must be a number, not {value!r}")
    return float(value)


def _integer(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{where}: must be a whole number, not {value!r}")
    return value


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where}: must be true or false, not {value!r}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"{where}: must be a list, not {value!r}")
    return value


_UNKNOWN = {item.name for item in dataclasses.fields(CompileOptions)} - {
    *OPTION_KEYS,
    "config",
    "verbosity",
    "layers",
    "inputs",
    "budgeted",
}
assert not _UNKNOWN, f"options without a TOML key: {_UNKNOWN}"
