"""Scalar functions, which become look-up tables."""

from __future__ import annotations

import math

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.ops.elu import Elu
from qcompile.ops.erf import Erf
from qcompile.ops.exp import Exp
from qcompile.ops.gelu import Gelu
from qcompile.ops.hard_sigmoid import HardSigmoid
from qcompile.ops.hard_swish import HardSwish
from qcompile.ops.sigmoid import Sigmoid
from qcompile.ops.silu import Silu
from qcompile.ops.softplus import Softplus
from qcompile.ops.sqrt import Sqrt
from qcompile.ops.tanh import Tanh


def convert_sigmoid(node: Node, builder: Builder) -> None:
    """Sigmoid."""
    builder.emit(Sigmoid(name=node.name, inputs=(builder.source(node),), outputs=(node.output,)))


def convert_tanh(node: Node, builder: Builder) -> None:
    """Tanh."""
    builder.emit(Tanh(name=node.name, inputs=(builder.source(node),), outputs=(node.output,)))


def convert_exp(node: Node, builder: Builder) -> None:
    """Exp."""
    builder.emit(Exp(name=node.name, inputs=(builder.source(node),), outputs=(node.output,)))


def convert_erf(node: Node, builder: Builder) -> None:
    """Erf."""
    builder.emit(Erf(name=node.name, inputs=(builder.source(node),), outputs=(node.output,)))


def convert_gelu(node: Node, builder: Builder) -> None:
    """Gelu (opset 20), exact or approximated by tanh."""
    approximate = node.text("approximate", "none")
    if approximate not in ("none", "tanh"):
        node.malformed(f"approximation '{approximate}' does not exist")
    builder.emit(
        Gelu(
            name=node.name,
            inputs=(builder.source(node),),
            outputs=(node.output,),
            tanh=approximate == "tanh",
        )
    )


def convert_sqrt(node: Node, builder: Builder) -> None:
    """Sqrt."""
    builder.emit(Sqrt(name=node.name, inputs=(builder.source(node),), outputs=(node.output,)))


def convert_softplus(node: Node, builder: Builder) -> None:
    """Softplus."""
    builder.emit(Softplus(name=node.name, inputs=(builder.source(node),), outputs=(node.output,)))


def convert_hard_swish(node: Node, builder: Builder) -> None:
    """HardSwish."""
    builder.emit(HardSwish(name=node.name, inputs=(builder.source(node),), outputs=(node.output,)))


def convert_hard_sigmoid(node: Node, builder: Builder) -> None:
    """HardSigmoid with its two coefficients."""
    builder.emit(
        HardSigmoid(
            name=node.name,
            inputs=(builder.source(node),),
            outputs=(node.output,),
            alpha=_finite(node, "alpha", 0.2),
            beta=_finite(node, "beta", 0.5),
        )
    )


def convert_elu(node: Node, builder: Builder) -> None:
    """Elu."""
    builder.emit(
        Elu(
            name=node.name,
            inputs=(builder.source(node),),
            outputs=(node.output,),
            alpha=_finite(node, "alpha", 1.0),
        )
    )


def convert_swish(node: Node, builder: Builder) -> None:
    """Swish (opset 24): x * sigmoid(alpha * x), for alpha 1."""
    alpha = node.real("alpha", 1.0)
    if alpha != 1.0:
        node.refuse(f"alpha {alpha:g}", "write it as Mul, Sigmoid and Mul")
    builder.emit(Silu(name=node.name, inputs=(builder.source(node),), outputs=(node.output,)))


def _finite(node: Node, name: str, default: float) -> float:
    value = node.real(name, default)
    if not math.isfinite(value):
        node.malformed(f"attribute '{name}' is NaN or infinite")
    return value
