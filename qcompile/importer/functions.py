"""Functions that a model defines for itself are put in place of their calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from qcompile.errors import ModelError

MAX_NODES = 100_000
"""Nested functions can multiply a small file into any number of nodes."""

Key = tuple[str, str]
"""Domain and name of a function."""


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without calls to its own functions; overloads are left as they are.

    Raises:
        ModelError: a function calls itself, or the result has more than `MAX_NODES` nodes.
    """
    if not model.functions:
        return model
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[Key, int] = {}
    for key in functions:
        _measure(key, functions, sizes)
    if _count(model.graph.node, sizes) > MAX_NODES:
        raise ModelError(
            f"the functions of the model expand to more than {MAX_NODES} nodes; "
            f"export it without functions"
        )
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as error:  # a C++ library: RuntimeError, ValueError and errors of its own
        raise ModelError(
            f"the functions of the model cannot be expanded ({error}); export it without functions"
        ) from None


def _measure(
    start: Key, functions: Mapping[Key, onnx.FunctionProto], sizes: dict[Key, int]
) -> None:
    """Fills `sizes` for a function and all that it calls, without recursion."""
    stack, open_calls = [start], set[Key]()
    while stack:
        key = stack[-1]
        if key in sizes:
            stack.pop()
            continue
        calls = {(node.domain, node.op_type) for node in functions[key].node}
        missing = [call for call in calls if call in functions and call not in sizes]
        if not missing:
            sizes[key] = min(_count(functions[key].node, sizes), MAX_NODES + 1)
            open_calls.discard(key)
            stack.pop()
            continue
        if key in open_calls:
            raise ModelError(
                f"function '{key[1]}' calls itself; export the model without functions"
            )
        open_calls.add(key)
        stack.extend(missing)


def _count(nodes: Iterable[onnx.NodeProto], sizes: Mapping[Key, int]) -> int:
    return sum(sizes.get((node.domain, node.op_type), 1) for node in nodes)
