"""How much a layer's output suffers from fewer bits, without running the network again.

What rounding one weight does to the sums can partly be undone by the weights rounded after it
(error-compensated rounding). What cannot is the part of its input that the inputs of those do not
explain: with columns in order of falling variance, the conditional variance d_j of column j, a
diagonal element of the Cholesky factor of their covariance. The error of a layer is then

    sum_j d_j * sum_r (w_rj - round(w_rj))**2  /  tr(W H W')

relative to the variance of its sums (H the covariance of the patches, W the rows of weights). A
variance conditional on k columns, taken from n patches, is too small by 1 - k / n.

Where every weight is rounded by itself nothing is undone, not even a mean error; there it is
tr(E S E') / tr(W H W') with the errors E and the patches' second moments S.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qcompile.graph import Graph, Op
from qcompile.passes.weight_quantizers import quantize_rows
from qcompile.passes.weight_rows import to_rows
from qcompile.plan import Format
from qcompile.search.covariances import Covariances
from qcompile.types import Array

DAMPING = 0.01
"""Added to the diagonal of a covariance, as a share of its mean."""
ROWS = 64
LEAST_FREEDOM = 0.25
"""Where there are hardly more patches than columns, no more than this is made up for."""
TINY = 1e-30


def weight_errors(
    graph: Graph,
    covariances: Mapping[str, Covariances],
    formats: Mapping[str, Sequence[Format]],
    compensated: bool = True,
) -> dict[str, dict[Format, float]]:
    """The relative output error of layers in several formats.

    Args:
        graph: a float graph.
        covariances: of its weighted operators.
        formats: operator name -> the formats its weights may have.
        compensated: whether rounding makes up for its errors, or rounds to nearest.

    Returns:
        Operator name -> format -> error, 0 being none and 1 an output without information.
    """
    result: dict[str, dict[Format, float]] = {}
    for name, allowed in formats.items():
        op = graph.by_name[name]
        rows = _some(grouped_rows(graph, op))
        found = covariances[name]
        unexplained = _unexplained(found) if compensated else None
        power = max(sum_power(found, rows), TINY)
        errors = {}
        for chosen in allowed:
            error = _rounded(rows, chosen) - rows
            if unexplained is None:
                means = np.matmul(error, found.mean[:, :, None])
                lost = sum_power(found, error) + float(np.square(means).sum())
            else:
                lost = float((np.square(error).sum(axis=1) * unexplained).sum())
            errors[chosen] = lost / power
        result[name] = errors
    return result


def grouped_rows(graph: Graph, op: Op) -> Array:
    """The weights of an operator as float64 [groups, rows, columns]."""
    rows = to_rows(op, graph.constants[op.inputs[1]]).astype(np.float64)
    return rows.reshape(getattr(op, "groups", 1), -1, rows.shape[1])


def _some(rows: Array) -> Array:
    """At most `ROWS` of each group's rows, evenly spread: enough for a ratio of sums."""
    return rows[:, :: -(-rows.shape[1] // ROWS)]


def _rounded(rows: Array, chosen: Format) -> Array:
    """`rows` [groups, rows, columns] rounded, with one scale a row."""
    flat = rows.reshape(-1, rows.shape[-1])
    quantized = quantize_rows(flat, chosen)
    return np.asarray((quantized.codes * quantized.scales[:, None]).reshape(rows.shape))


def _unexplained(covariances: Covariances) -> Array:
    """The conditional variances d [groups, columns]."""
    parts = []
    for block in covariances.blocks:
        extra = _damping(block)[:, None, None] * np.eye(block.shape[-1], dtype=block.dtype)
        damped = block + extra
        diagonals = np.diagonal(damped, axis1=1, axis2=2)
        found = np.empty(diagonals.shape)
        for group, (matrix, variances) in enumerate(zip(damped, diagonals, strict=True)):
            order = np.argsort(variances, kind="stable")
            factor = np.linalg.cholesky(matrix[np.ix_(order, order)])
            explaining = np.arange(len(order))
            freedom = np.maximum(1 - explaining / covariances.count, LEAST_FREEDOM)
            found[group, order] = np.square(np.diagonal(factor)) / freedom
        parts.append(found)
    return np.concatenate(parts, axis=1)


def _damping(block: Array) -> Array:
    """For each group, what is added to the diagonal."""
    mean = np.trace(block, axis1=1, axis2=2) / block.shape[-1]
    return np.asarray(np.maximum(DAMPING * mean, TINY))


def sum_power(covariances: Covariances, rows: Array) -> float:
    """tr(W H W'), the variance of the layer's sums."""
    total, first = 0.0, 0
    for block in covariances.blocks:
        part = rows[:, :, first : first + block.shape[-1]]
        total += float((np.matmul(part, block) * part).sum())
        first += block.shape[-1]
    return total
