"""Typed dataclasses to JSON values and back, strictly: the field types say what may stand there.

A field that has its default value is left out. Fractions are strings such as "1/3", enumerations
their value, floats that are not finite the strings "inf" and "-inf". Where a field may hold one of
several classes, the object names its class under "type".
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import types
import typing
from fractions import Fraction
from typing import Any

_FRACTION = re.compile(r"-?[0-9]{1,40}/[1-9][0-9]{0,39}")


def encode(value: Any) -> Any:
    """The JSON form of a field's value."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **encode_fields(value)}
    raise TypeError(f"no JSON form for {type(value).__name__}")


def encode_fields(value: Any, skip: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, by name."""
    return {
        field.name: encode(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if field.name not in skip
        and (field.default is dataclasses.MISSING or getattr(value, field.name) != field.default)
    }


def decode_fields(cls: type[Any], data: Any, where: str, **given: Any) -> Any:
    """A dataclass from the object that `encode_fields` made, plus the fields in `given`.

    Raises:
        ValueError: a field is unknown, missing or has another type.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} is not an object")
    hints = typing.get_type_hints(cls)
    values = dict(given)
    for name, item in data.items():
        if name == "type":
            continue
        if name not in hints or name in given:
            raise ValueError(f"{where} has an unknown field '{name}'")
        values[name] = decode(item, hints[name], f"{where}.{name}")
    for field in dataclasses.fields(cls):
        if field.name not in values and field.default is dataclasses.MISSING:
            raise ValueError(f"{where} has no field '{field.name}'")
    return cls(**values)


def decode(data: Any, hint: Any, where: str) -> Any:
    """The value of type `hint` that `encode` turned into `data`.

    Raises:
        ValueError: `data` has another type.
    """
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(data, typing.get_args(hint), where)
    if origin is tuple:
        return _decode_tuple(data, typing.get_args(hint), where)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(data)
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        if not isinstance(data, dict) or data.get("type") != hint.__name__:
            raise ValueError(f"{where} is no {hint.__name__}")
        return decode_fields(hint, data, where)
    if hint is float:
        if isinstance(data, str) and data in ("inf", "-inf"):
            return float(data)
        if isinstance(data, int | float) and not isinstance(data, bool) and math.isfinite(data):
            return float(data)
    elif hint is Fraction:
        # Not every text that Fraction takes: "1e999999999" would fill the memory.
        if isinstance(data, str) and _FRACTION.fullmatch(data):
            return Fraction(data)
    elif hint in (int, bool, str) and type(data) is hint:
        return data
    raise ValueError(f"{where} is no {getattr(hint, '__name__', hint)}")


def _decode_union(data: Any, options: tuple[Any, ...], where: str) -> Any:
    if data is None and type(None) in options:
        return None
    rest = [option for option in options if option is not type(None)]
    if len(rest) == 1:
        return decode(data, rest[0], where)
    named = {option.__name__: option for option in rest}
    kind = data.get("type") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in named:
        raise ValueError(f"{where} is none of {', '.join(sorted(named))}")
    return decode_fields(named[kind], data, where)


def _decode_tuple(data: Any, items: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise ValueError(f"{where} is no list")
    if len(items) == 2 and items[1] is Ellipsis:
        if items[0] is int:
            # The common case, thousands of constants: one check instead of one call each.
            if any(type(item) is not int for item in data):
                raise ValueError(f"{where} is no list of integers")
            return tuple(data)
        return tuple(decode(item, items[0], f"{where}[{i}]") for i, item in enumerate(data))
    if len(data) != len(items):
        raise ValueError(f"{where} has {len(data)} entries, not {len(items)}")
    return tuple(
        decode(item, hint, f"{where}[{i}]")
        for i, (item, hint) in enumerate(zip(data, items, strict=True))
    )
