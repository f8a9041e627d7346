"""The function that turns a row of sums into a row of outputs: the C form of the epilogue."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from qcompile.backends.c.context import Context
from qcompile.backends.c.names import float_literal, integer_literal
from qcompile.backends.c.program import Kernel, Role, Setting, Step, kernel
from qcompile.numerics import Requantize, Thresholds
from qcompile.ops import SumOp
from qcompile.ops.activation import Activation
from qcompile.passes.choose_kernels import product_type, sums_type
from qcompile.types import Array, Quantization

UNROLLED_THRESHOLDS = 2
"""Ternary and binary outputs: compilers vectorise what has no inner loop."""


def plan_epilogue(
    context: Context, step: Step, op: SumOp, channels: int, prefix: str = ""
) -> Kernel:
    """Declares the constants of `op`'s epilogue in `step` as the local `epilogue`.

    Args:
        context: of the program.
        step: that computes `op`.
        op: whose epilogue it is.
        channels: elements of a row of sums.
        prefix: what the names of the local and of the tables begin with, where a step has several.

    Returns:
        The kernel that applies it to rows of sums.
    """
    epilogue = op.epilogue
    if isinstance(epilogue, Requantize):
        return _requantize(context, step, op, epilogue, channels, prefix)
    if isinstance(epilogue, Thresholds):
        return _thresholds(context, step, op, epilogue, channels, prefix)
    return _activate(context, step, op, channels)


def is_flat(op: SumOp) -> bool:
    """The epilogue treats all channels alike, so rows may be cut anywhere."""
    epilogue = op.epilogue
    if isinstance(epilogue, Requantize):
        return epilogue.is_uniform
    if isinstance(epilogue, Thresholds):
        return all(len(limits) == 1 for limits in epilogue.thresholds)
    act = op.activation
    return all(len(vector) == 1 for vector in (act.slope, act.gain, act.shift)) and not bias_of(op)


def bias_of(op: SumOp) -> str | None:
    """The bias input of a float operator that has weights."""
    has_weights = op.kind in ("Conv", "ConvTranspose", "MatMul")
    return op.inputs[2] if has_weights and len(op.inputs) > 2 else None


def each_channel(values: Sequence[int], channels: int) -> Array:
    """One value a channel; rows of several pixels repeat them."""
    return np.array(list(values) * (channels // len(values)), dtype=object)


def _requantize(
    context: Context, step: Step, op: SumOp, epilogue: Requantize, channels: int, prefix: str
) -> Kernel:
    sums, y = sums_type(op), context.ctype(op.output)
    product = "int64_t" if sums == "int64_t" else product_type(op)
    flat = is_flat(op)
    one_shift = len(set(epilogue.shifts)) == 1
    one_clamp = len(set(epilogue.lows)) == len(set(epilogue.highs)) == 1
    negative = epilogue.negative
    suffix = "_wide" if product != sums else ""
    suffix += "" if flat else "_each" if one_shift else "_shifts"
    suffix += "" if one_clamp else "_clamps"
    suffix += "_leaky" if negative is not None else ""
    item = kernel(
        "requantize",
        [sums, y],
        requires=[kernel("shift_floor", [product], shared=True, type=product)],
        suffix=suffix,
        sums=sums,
        product=product,
        y=y,
        flat=flat,
        one_shift=one_shift,
        one_clamp=one_clamp,
        negative=negative is not None,
    )
    item = _with_constants(item, "requantize_constants")
    named: list[tuple[str, tuple[int, ...], str]] = [
        ("multiplier", epilogue.multipliers, product),
        ("bias", epilogue.biases, product),
        ("sum_low", epilogue.acc_low, sums),
        ("sum_high", epilogue.acc_high, sums),
    ]
    if negative is not None:
        named += [
            ("pivot", negative.pivots, sums),
            ("negative_multiplier", negative.multipliers, product),
            ("negative_bias", negative.biases, product),
        ]
    fields = [
        (name, _constant(step, prefix + name, values, ctype, flat, channels))
        for name, values, ctype in named
    ]
    if one_shift:
        fields.append(("shift", str(epilogue.shifts[0])))
    else:
        fields.append(
            (
                "shift",
                _constant(step, f"{prefix}shift", epilogue.shifts, "uint8_t", False, channels),
            )
        )
    for name, codes in (("low", epilogue.lows), ("high", epilogue.highs)):
        fields.append((name, _constant(step, prefix + name, codes, y, one_clamp, channels)))
    _declare(step, item, fields, prefix)
    return item


def _constant(
    step: Step, name: str, values: Sequence[int], ctype: str, flat: bool, channels: int
) -> str:
    if flat:
        return integer_literal(values[0], ctype)
    return step.table(name, ctype, each_channel(values, channels), Role.EPILOGUE)


def _thresholds(
    context: Context, step: Step, op: SumOp, epilogue: Thresholds, channels: int, prefix: str
) -> Kernel:
    sums, y = sums_type(op), context.ctype(op.output)
    flat = is_flat(op)
    count = len(epilogue.thresholds)
    unrolled = count if count <= UNROLLED_THRESHOLDS else 0
    suffix = ("" if flat else "_each") + (f"_{unrolled}" if unrolled else "")
    item = _with_constants(
        kernel("thresholds", [sums, y], suffix=suffix, sums=sums, y=y, flat=flat, count=unrolled),
        "thresholds_constants",
    )
    width = 1 if flat else channels
    limits = np.stack([each_channel(values, width) for values in epilogue.thresholds])
    low, high = (-(1 << 31), (1 << 31) - 1) if sums == "int32_t" else (-(1 << 63), (1 << 63) - 1)
    limits = np.clip(limits, low, high)
    table = step.table(f"{prefix}limits", sums, limits, Role.EPILOGUE)
    fields = [("limits", table), ("count", str(count))]
    fields += [("low", str(epilogue.low)), ("rise", str(epilogue.step))]
    if not flat:
        fields.append(("width", str(width)))
    _declare(step, item, fields, prefix)
    return item


def _declare(step: Step, item: Kernel, fields: Sequence[tuple[str, str]], prefix: str = "") -> None:
    values = ", ".join(f".{name} = {value}" for name, value in fields)
    step.locals.append(f"const {constants_type(item)} {prefix}epilogue = {{ {values} }};")


def constants_type(epilogue: Kernel) -> str:
    """The struct that holds the constants of an epilogue, at whatever level it is compiled."""
    return str(dict(epilogue.settings)["constants"])


def _with_constants(item: Kernel, template: str) -> Kernel:
    """The epilogue, and apart from it, because all levels share it, the struct of its constants."""
    name = f"{item.function}_constants"
    struct = Kernel(template, name, item.settings, shared=True)
    return dataclasses.replace(
        item,
        settings=(*item.settings, ("constants", name)),
        requires=(struct, *item.requires),
    )


def _activate(context: Context, step: Step, op: SumOp, channels: int) -> Kernel:
    """A float island's bias and activation."""
    act: Activation = op.activation
    bias = bias_of(op)
    settings: dict[str, Setting] = {
        "bias": bias is not None,
        "slope": _presence(act.slope, 1.0),
        "gain": _presence(act.gain, 1.0),
        "shift": _presence(act.shift, 0.0),
        "clip": not (math.isinf(act.low) and math.isinf(act.high)),
    }
    letters = "b" if bias is not None else ""
    letters += "".join(
        letter + {"one": "", "each": "c"}[str(settings[name])]
        for letter, name in (("s", "slope"), ("g", "gain"), ("h", "shift"))
        if settings[name] != "no"
    )
    letters += "k" if settings["clip"] else ""
    name = f"activate_{letters}" if letters else "activate"
    settings["constants"] = f"{name}_constants"
    item = Kernel("activate", name, tuple(settings.items()))
    fields: list[tuple[str, str]] = []
    if bias is not None:
        data = real_constant(context, bias)
        fields.append(("bias", step.table("bias", "float", data, Role.EPILOGUE)))
    for name, values in (("slope", act.slope), ("gain", act.gain), ("shift", act.shift)):
        if settings[name] == "one":
            fields.append((name, float_literal(values[0])))
        elif settings[name] == "each":
            fields.append(
                (name, step.table(name, "float", np.asarray(values, np.float32), Role.EPILOGUE))
            )
    if settings["clip"]:
        fields += [("low", float_literal(act.low)), ("high", float_literal(act.high))]
    if not fields:
        fields.append(("unused", "0"))
    _declare(step, item, fields)
    return item


def _presence(values: Sequence[float], default: float) -> str:
    if len(values) > 1:
        return "each"
    return "no" if values[0] == default else "one"


def real_constant(context: Context, value: str) -> Array:
    """The float32 values of a constant that may be stored as integer codes."""
    data, kind = context.graph.constants[value], context.type(value)
    if kind.is_float:
        return data.astype(np.float32)
    quantization: Quantization | None = kind.quantization
    if quantization is None:
        return data.astype(np.float32)
    return np.asarray(data.astype(np.float32) * quantization.factors(data.shape))
