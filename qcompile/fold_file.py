"""The TOML file that says how parallel layers of an accelerator are: `--fold`, and what is written.

    [[layer]]
    name = "enc1/conv"    the name of a node, or a shell pattern such as "enc*"
    pe = 4                outputs at a time
    simd = 8              products of each a cycle

A name goes before a pattern, a later table before an earlier one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import tomli_w

from qcompile.errors import UsageError
from qcompile.hw.stage import Fold

MAX_FOLD_BYTES = 16 << 20
LAYER_KEYS = ("name", "pe", "simd")
SHOWN = 12


def fixed_folds(path: Path, allowed: Mapping[str, Sequence[Fold]]) -> dict[str, Fold]:
    """The foldings that a file asks for, by operator name; layers it leaves out are not in it.

    Args:
        path: a TOML file.
        allowed: every operator's foldings.

    Raises:
        UsageError: the file cannot be read, names no layer of the network, or asks for a folding
            that the layer cannot have.
    """
    exact: dict[str, Fold] = {}
    general: dict[str, Fold] = {}
    for name, fold, where in _tables(path):
        matching = [name] if name in allowed else [n for n in allowed if fnmatchcase(n, name)]
        if not matching:
            close = get_close_matches(name, allowed, 1) or list(allowed)[:1]
            known = f" (such as '{close[0]}')" if close else ""
            raise UsageError(f"{where}: no layer has this name; use that of a node{known}")
        for layer in matching:
            if fold not in allowed[layer]:
                raise UsageError(f"{where}: {_refusal(layer, fold, allowed[layer])}")
        (exact if name in allowed else general).update(dict.fromkeys(matching, fold))
    return {**general, **exact}


def fold_text(folds: Mapping[str, Fold]) -> str:
    """The file that asks for `folds`; to be edited and given back."""
    text = "# Parallelism of each layer; edit and give back with --fold.\n"
    for name, fold in folds.items():
        # A table of its own for each, not a list of short ones: others can be added to the file.
        table = tomli_w.dumps({"name": name, "pe": fold.pe, "simd": fold.simd})
        text += f"\n[[layer]]\n{table}"
    return text


def _tables(path: Path) -> list[tuple[str, Fold, str]]:
    """Name or pattern, folding and place of every table of the file."""
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"--fold {path}: is not a regular file; give a TOML file")
        if path.stat().st_size > MAX_FOLD_BYTES:
            raise UsageError(f"--fold {path}: larger than {MAX_FOLD_BYTES} bytes")
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--fold {path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"--fold {path}: is not valid TOML ({error})") from None
    where = f"--fold {path.name}"
    unknown = sorted(document.keys() - {"layer"})
    if unknown:
        raise UsageError(f"{where}: unknown '{unknown[0]}'; the file consists of [[layer]] tables")
    layers = document.get("layer", [])
    if not isinstance(layers, list) or not all(isinstance(table, dict) for table in layers):
        raise UsageError(f"{where}: 'layer' must be a list of tables; write [[layer]]")
    return [_table(table, f"{where} [[layer]]") for table in layers]


def _table(table: Mapping[str, Any], where: str) -> tuple[str, Fold, str]:
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where}: every table needs the name (or pattern) of a layer")
    where = f"{where} '{name}'"
    unknown = sorted(table.keys() - set(LAYER_KEYS))
    if unknown:
        raise UsageError(f"{where}: unknown key '{unknown[0]}'; use {', '.join(LAYER_KEYS)}")
    numbers = []
    for key in ("pe", "simd"):
        value = table.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            said = "is missing" if key not in table else f"is {value!r}"
            raise UsageError(f"{where}: {key} {said}; it must be a whole number from 1 on")
        numbers.append(value)
    return name, Fold(*numbers), where


def _refusal(layer: str, fold: Fold, allowed: Sequence[Fold]) -> str:
    """Why a layer cannot have a folding, with those values that it can have."""
    for key in ("pe", "simd"):
        values = sorted({getattr(item, key) for item in allowed})
        if getattr(fold, key) not in values:
            listing = ", ".join(str(value) for value in values[:SHOWN])
            more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
            return (
                f"{key} {getattr(fold, key)} does not fit layer '{layer}'; use one of "
                f"{listing}{more}"
            )
    values = sorted(item.simd for item in allowed if item.pe == fold.pe)
    return (
        f"layer '{layer}' has no folding of pe {fold.pe} and simd {fold.simd}; with that pe use "
        f"simd {', '.join(str(value) for value in values[:SHOWN])}"
    )
