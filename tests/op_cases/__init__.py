"""Single-operator graphs of the integer stage that every back end must agree on in every element.

`CASES` lists one file for each operator; `all_cases` yields their cases, reproducibly.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tests.op_cases import (
    add,
    affine,
    arg_max,
    average_pool,
    batch_matmul,
    concat,
    conv,
    conv_transpose,
    depth_to_space,
    dequantize,
    div,
    elu,
    erf,
    exp,
    gather,
    gelu,
    group_norm,
    hard_sigmoid,
    hard_swish,
    layer_norm,
    linear_resize,
    local_attention2d,
    lookup,
    masked_fill,
    matmul,
    max_pool,
    max_pool_index,
    max_unpool,
    mul,
    nearest_resize,
    pad,
    quantize,
    reduce_mean,
    rescale,
    reshape,
    sigmoid,
    silu,
    slice,
    softmax,
    softplus,
    sqrt,
    steps,
    tanh,
    ternary_tanh,
    threshold,
    transpose,
)
from tests.op_cases.case import OpCase

Cases = Callable[[np.random.Generator], Iterator[OpCase]]

CASES: Mapping[str, Cases] = {
    "conv": conv.cases,
    "conv_transpose": conv_transpose.cases,
    "matmul": matmul.cases,
    "batch_matmul": batch_matmul.cases,
    "affine": affine.cases,
    "rescale": rescale.cases,
    "add": add.cases,
    "mul": mul.cases,
    "div": div.cases,
    "average_pool": average_pool.cases,
    "reduce_mean": reduce_mean.cases,
    "linear_resize": linear_resize.cases,
    "group_norm": group_norm.cases,
    "layer_norm": layer_norm.cases,
    "local_attention2d": local_attention2d.cases,
    "max_pool": max_pool.cases,
    "max_pool_index": max_pool_index.cases,
    "max_unpool": max_unpool.cases,
    "nearest_resize": nearest_resize.cases,
    "concat": concat.cases,
    "pad": pad.cases,
    "slice": slice.cases,
    "gather": gather.cases,
    "masked_fill": masked_fill.cases,
    "transpose": transpose.cases,
    "reshape": reshape.cases,
    "depth_to_space": depth_to_space.cases,
    "softmax": softmax.cases,
    "arg_max": arg_max.cases,
    "threshold": threshold.cases,
    "sigmoid": sigmoid.cases,
    "hard_sigmoid": hard_sigmoid.cases,
    "hard_swish": hard_swish.cases,
    "silu": silu.cases,
    "tanh": tanh.cases,
    "ternary_tanh": ternary_tanh.cases,
    "steps": steps.cases,
    "elu": elu.cases,
    "softplus": softplus.cases,
    "exp": exp.cases,
    "gelu": gelu.cases,
    "erf": erf.cases,
    "sqrt": sqrt.cases,
    "lookup": lookup.cases,
    "quantize": quantize.cases,
    "dequantize": dequantize.cases,
}
"""Operator stem -> its cases."""


def cases_of(stem: str, seed: int = 0) -> tuple[OpCase, ...]:
    """The cases of one operator; each operator has its own random stream."""
    rng = np.random.default_rng([seed, zlib.crc32(stem.encode())])
    return tuple(CASES[stem](rng))


def all_cases(seed: int = 0) -> tuple[OpCase, ...]:
    return tuple(case for stem in CASES for case in cases_of(stem, seed))


__all__ = ["CASES", "OpCase", "all_cases", "cases_of"]
