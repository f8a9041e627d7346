"""ONNX's own operator tests, against import and float executor.

The cases feed weights as graph inputs; here every input but the first becomes an initialiser, and
the operators with two computed operands run in all three combinations. Batches above 1, which users
cannot import, are allowed here: most cases have one.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from qcompile.errors import QCompileError
from qcompile.importer.model import convert_model
from qcompile.importer.table import CONVERTERS
from qcompile.sim.executor import Executor
from qcompile.types import Array

OPERANDS = ("Add", "Div", "Mul", "Sub")
"""Run with both operands computed, and with either of them constant."""

ALL_COMPUTED = ("Concat", "Sum")

REFUSED = {
    "test_batchnorm_*training_mode": "training",
    "test_training_dropout*": "training",
    "test_dropout_default_mask*": "the mask of Dropout",
    "test_einsum_batch_diagonal": "a diagonal",
    "test_einsum_scalar": "a single number as input",
    "test_layer_normalization_*": "mean and deviation as outputs",
    "test_reduce_sum_empty_set*": "an empty input",
    "test_maxpool_with_argmax*": "the indices of MaxPool",
    "test_matmul_1d_*": "a vector as the computed factor",
    "test_maxunpool_*": "indices that no MaxPool of the model wrote",
    "test_max_[!o]*": "bounds that are tensors",
    "test_min_[!o]*": "bounds that are tensors",
    "test_pow": "exponents that are a tensor",
    "test_pow_[!b]*": "exponents other than 1 and 2",
    "test_pow_bcast_array": "exponents that are a tensor",
    "test_resize*cubic*": "cubic interpolation",
    "test_resize*antialias": "antialias",
    "test_resize_tf_crop_and_resize_extrapolation_value": "extrapolation",
    "test_slice_start_out_of_bounds": "an empty result",
    "test_split_zero_size_splits*": "an empty result",
    "test_reshape_allowzero_reordered": "an empty result",
    "test_shape*": "a constant as the output of the model",
    "test_size*": "a constant as the output of the model",
}
"""Cases (name, and the constant operand if any) that must be refused with an error of ours."""

DIFFERENT = {
    "test_resize_downsample_scales_linear_align_corners": (
        "with fractional sizes we follow onnxruntime, which uses the rounded output size"
    ),
}
"""Cases that we compute otherwise, with reasons."""

UNCOVERED = {
    "Constant": "has no inputs, so the case is a constant model; see test_layout.py",
    "Shape": "gives a constant; see test_layout.py",
    "LayerNormalization": "the cases return mean and deviation; see test_attention.py",
    "MaxUnpool": "the cases have indices without their MaxPool; see test_pool_indices.py",
    "Size": "gives a constant; see test_layout.py",
    "Upsample": "no longer among the cases; see test_resize.py",
    **dict.fromkeys(("IsNaN", "Where"), "the cases have boolean results; see test_attention.py"),
    **dict.fromkeys(
        ("And", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"),
        "the cases have boolean results; see test_comparisons.py",
    ),
    **dict.fromkeys(
        ("DequantizeLinear", "QLinearConv", "QLinearMatMul", "QuantizeLinear"),
        "the cases take scales at run time; see test_qdq.py and test_q_operators.py",
    ),
}


@dataclass(frozen=True)
class Case:
    """One case; `constants` are the indices of the inputs that become initialisers."""

    id: str
    model: onnx.ModelProto
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    constants: tuple[int, ...]

    @property
    def operator(self) -> str:
        return self.model.graph.node[0].op_type


def _array(value: object) -> Array | None:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.ndarray | np.generic) else None


def _is_real(array: Array | None) -> bool:
    return array is not None and array.dtype in (np.float16, np.float32, np.float64)


@lru_cache(maxsize=1)
def _cases() -> tuple[tuple[Case, ...], Counter[str]]:
    """All cases of one claimed operator on real numbers, and how many others there are and why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    left_out: Counter[str] = Counter()
    cases: list[Case] = []
    for case in collected:
        graph = case.model.graph
        if any(node.domain not in ("", "ai.onnx") for node in graph.node):
            left_out["another domain"] += 1
        elif len(graph.node) != 1:
            left_out["an operator spelled out in others"] += 1
        elif graph.node[0].op_type not in CONVERTERS:
            left_out["operator not claimed"] += 1
        elif not graph.input:
            left_out["no input"] += 1
        else:
            data_in, data_out = case.data_sets[0]
            inputs, outputs = [_array(x) for x in data_in], [_array(y) for y in data_out]
            integers_out = graph.node[0].op_type in ("ArgMax", "Shape", "Size")
            if not _is_real(inputs[0]) or not (_is_real(outputs[0]) or integers_out):
                left_out["elements that are not real numbers"] += 1
                continue
            assert all(array is not None for array in (*inputs, *outputs))
            cases.extend(_variants(case.name, case.model, tuple(inputs), tuple(outputs)))  # type: ignore[arg-type]
    return tuple(cases), left_out


def _variants(
    name: str, model: onnx.ModelProto, inputs: tuple[Array, ...], outputs: tuple[Array, ...]
) -> Iterator[Case]:
    operator = model.graph.node[0].op_type
    if operator in OPERANDS:
        yield Case(name, model, inputs, outputs, ())
        yield Case(f"{name}:left", model, inputs, outputs, (0,))
        yield Case(f"{name}:right", model, inputs, outputs, (1,))
    elif operator in ALL_COMPUTED:
        yield Case(name, model, inputs, outputs, ())
    else:
        yield Case(name, model, inputs, outputs, tuple(range(1, len(inputs))))


def _matching(name: str, patterns: dict[str, str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _selected(refused: bool) -> list[pytest.ParameterSet]:
    return [
        pytest.param(case, id=case.id)
        for case in _cases()[0]
        if case.id not in DIFFERENT and _matching(case.id, REFUSED) == refused
    ]


def _run(case: Case) -> list[Array]:
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for index in case.constants:
        name = model.graph.input[index].name
        model.graph.initializer.append(numpy_helper.from_array(case.inputs[index], name))
    graph = convert_model(model, Path(), batch_one=False)
    feeds = {
        value.name: np.asarray(data, dtype=np.float32)
        for value, data in zip(case.model.graph.input, case.inputs, strict=True)
        if value.name in graph.inputs
    }
    results = Executor(graph).run(feeds)
    return [results[value.name] for value in case.model.graph.output]


@pytest.mark.parametrize("case", _selected(refused=False))
def test_case(case: Case) -> None:
    coarse = any(array.dtype == np.float16 for array in (*case.inputs, *case.outputs))
    for result, expected in zip(_run(case), case.outputs, strict=True):
        assert result.shape == expected.shape
        np.testing.assert_allclose(
            result.astype(np.float64),
            expected.astype(np.float64),
            rtol=1e-2 if coarse else 1e-3,
            atol=1e-5,
        )


@pytest.mark.parametrize("case", _selected(refused=True))
def test_refused_case(case: Case) -> None:
    with pytest.raises(QCompileError):
        _run(case)


def test_every_operator_is_covered() -> None:
    covered = {
        case.operator
        for case in _cases()[0]
        if case.id not in DIFFERENT and not _matching(case.id, REFUSED)
    }
    missing = set(CONVERTERS) - covered - set(UNCOVERED)
    # operators that this onnx does not have yet cannot have cases
    missing = {name for name in missing if onnx.defs.has(name)}
    assert not missing, f"no ONNX case runs for {sorted(missing)}; left out: {_cases()[1]}"


def test_exclusions_are_all_needed() -> None:
    names = [case.id for case in _cases()[0]]
    for pattern in (*REFUSED, *DIFFERENT):
        assert any(fnmatch(name, pattern) for name in names), f"nothing matches {pattern}"
