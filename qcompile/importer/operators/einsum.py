"""Einsum of one or two operands, as Transpose, Reshape and one product.

'bqhd,bkhd->bhqk'   ->   (b, h) are batch axes, q and k rows and columns, d is summed over

    a = Transpose [b,h,q,d]     b = Transpose [b,h,d,k]     y = BatchMatMul(a, b)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qcompile.importer.builder import Builder
from qcompile.importer.node import Node
from qcompile.importer.operators.matmul import emit_product
from qcompile.importer.operators.reduce import emit_sum
from qcompile.ops.mul import Mul
from qcompile.ops.reshape import Reshape
from qcompile.ops.transpose import Transpose
from qcompile.types import Shape

ADVICE = "write it as Transpose, Reshape and MatMul"
SPARE = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Operand:
    """A value (or constant) and the letters of its axes."""

    value: str
    letters: str


def convert_einsum(node: Node, builder: Builder) -> None:
    """Einsum."""
    terms, result = _parsed(node, builder)
    if len(terms) > 2:
        node.refuse(f"{len(terms)} operands", "split it into products of two operands")
    sizes: dict[str, int] = {}
    for index, letters in enumerate(terms):
        if len(set(letters)) < len(letters):
            node.refuse(f"an axis that stands twice in '{letters}' (a diagonal)", ADVICE)
        for letter, size in zip(letters, builder.shape_of(node, index), strict=True):
            if sizes.setdefault(letter, size) != size:
                node.refuse(f"axis '{letter}' of sizes {sizes[letter]} and {size}", ADVICE)
    if set(result) - sizes.keys() or len(set(result)) < len(result):
        node.malformed(f"its result has axes '{result}'")
    kept = [
        _without(node, builder, index, letters, set("".join(terms[1 - index : 2 - index])), result)
        for index, letters in enumerate(terms)
    ]
    if len(kept) == 1:
        _finish(node, builder, kept[0], result)
        return
    first, second = kept
    shared = [letter for letter in first.letters if letter in second.letters]
    summed = [letter for letter in shared if letter not in result]
    batch = [letter for letter in result if letter in shared]
    rows = [letter for letter in result if letter in first.letters and letter not in shared]
    columns = [letter for letter in result if letter in second.letters and letter not in shared]
    if not summed and not rows and not columns:
        _multiply(node, builder, first, second, "".join(batch), result)
        return
    left = _arranged(node, builder, first, (batch, rows, summed), sizes, "left")
    right = _arranged(node, builder, second, (batch, summed, columns), sizes, "right")
    _, product = builder.part(node, "product")
    emit_product(node, builder, left, right, product)
    letters = "".join([*batch, *rows, *columns])
    shape = tuple(sizes[letter] for letter in letters)
    if shape != builder.shape(product):
        name, value = builder.part(node, "axes")
        builder.emit(Reshape(name=name, inputs=(product,), outputs=(value,), shape=shape))
        product = value
    _finish(node, builder, Operand(product, letters), result)


def _parsed(node: Node, builder: Builder) -> tuple[list[str], str]:
    """The letters of every operand and of the result, '...' written out."""
    equation = node.text("equation", "").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(node.inputs):
        node.malformed(f"equation '{equation}' has {len(terms)} operands")
    spare = [letter for letter in SPARE if letter not in equation]
    ranks = [len(builder.shape_of(node, index)) for index in range(len(terms))]
    extra = [
        rank - len(term) + 3 if "..." in term else 0
        for rank, term in zip(ranks, terms, strict=True)
    ]
    if max(extra) > len(spare) or min(extra) < 0:
        node.malformed(f"equation '{equation}' does not fit operands of {ranks} axes")
    axes = "".join(spare[: max(extra)])
    terms = [
        term.replace("...", axes[len(axes) - count :])
        for term, count in zip(terms, extra, strict=True)
    ]
    if not arrow:
        names = "".join(sorted(set(left) - set(",.")))
        result = axes + "".join(letter for letter in names if left.count(letter) == 1)
    result = result.replace("...", axes)
    for term, rank in zip(terms, ranks, strict=True):
        if len(term) != rank or not (term.isalpha() or not term):
            node.malformed(f"equation '{equation}' does not fit operands of {ranks} axes")
    return terms, result


def _without(
    node: Node, builder: Builder, index: int, letters: str, other: set[str], result: str
) -> Operand:
    """An operand without the axes that are summed over in it alone."""
    alone = tuple(
        axis for axis, letter in enumerate(letters) if letter not in other and letter not in result
    )
    value = node.inputs[index]
    data = builder.data(value)
    if data is not None:
        if alone:
            builder.know(summed := builder.fresh(f"{value}.sum"), data.sum(axis=alone))
            value = summed
        return Operand(value, _left(letters, alone))
    source = builder.source(node, index)
    if alone:
        name, total = builder.part(node, f"sum{index}")
        emit_sum(node, builder, source, alone, False, (name, total))
        source = total
    return Operand(source, _left(letters, alone))


def _left(letters: str, gone: Sequence[int]) -> str:
    return "".join(letter for axis, letter in enumerate(letters) if axis not in gone)


def _arranged(
    node: Node,
    builder: Builder,
    operand: Operand,
    groups: tuple[list[str], list[str], list[str]],
    sizes: dict[str, int],
    role: str,
) -> str:
    """The operand with its batch axes first, each other group of axes joined to one."""
    wanted = "".join("".join(group) for group in groups)
    shape: Shape = (
        *(sizes[letter] for letter in groups[0]),
        math.prod(sizes[letter] for letter in groups[1]),
        math.prod(sizes[letter] for letter in groups[2]),
    )
    permutation = tuple(operand.letters.index(letter) for letter in wanted)
    data = builder.data(operand.value)
    if data is not None:
        name = builder.fresh(f"{operand.value}.{role}")
        builder.know(name, data.transpose(permutation).reshape(shape))
        return name
    value = operand.value
    if permutation != tuple(range(len(permutation))):
        name, moved = builder.part(node, f"{role}_order")
        builder.emit(
            Transpose(name=name, inputs=(value,), outputs=(moved,), permutation=permutation)
        )
        value = moved
    if shape != builder.shape(value):
        name, joined = builder.part(node, f"{role}_matrix")
        builder.emit(Reshape(name=name, inputs=(value,), outputs=(joined,), shape=shape))
        value = joined
    return value


def _multiply(
    node: Node, builder: Builder, first: Operand, second: Operand, batch: str, result: str
) -> None:
    """Element by element: all axes are shared and stay."""
    names = []
    for operand, role in ((first, "left"), (second, "right")):
        groups: tuple[list[str], list[str], list[str]] = (list(batch), [], [])
        sizes = dict(zip(operand.letters, _shape(builder, operand.value), strict=True))
        value = _arranged(node, builder, operand, groups, sizes, role)
        data = builder.data(value)
        names.append(value if data is None else builder.constant(node, value, data))
    name, product = builder.part(node, "product")
    builder.emit(Mul(name=name, inputs=(names[0], names[1]), outputs=(product,)))
    shape = builder.shape(product)[: len(batch)]
    name, flat = builder.part(node, "axes")
    builder.emit(Reshape(name=name, inputs=(product,), outputs=(flat,), shape=shape))
    _finish(node, builder, Operand(flat, batch), result)


def _shape(builder: Builder, value: str) -> Shape:
    data = builder.data(value)
    return builder.shape(value) if data is None else data.shape


def _finish(node: Node, builder: Builder, operand: Operand, result: str) -> None:
    """The axes in the order of the result, under the node's own name."""
    permutation = tuple(operand.letters.index(letter) for letter in result)
    if operand.letters == result:
        shape = builder.shape(operand.value)
        builder.emit(
            Reshape(name=node.name, inputs=(operand.value,), outputs=(node.output,), shape=shape)
        )
        return
    builder.emit(
        Transpose(
            name=node.name,
            inputs=(operand.value,),
            outputs=(node.output,),
            permutation=permutation,
        )
    )
