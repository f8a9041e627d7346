"""The scales of batch norms as they were trained, which conversion merges with the variance."""

from __future__ import annotations

from pathlib import Path

from qcompile.importer.functions import inline_functions
from qcompile.importer.model import node_names
from qcompile.importer.protobuf import read_model
from qcompile.importer.tensors import TensorReader
from qcompile.types import Array


def batch_norm_scales(path: Path) -> dict[str, Array]:
    """Node name -> scale [C] of every BatchNormalization whose scale is an initialiser.

    Names are those of the operators that `import_model` makes of the nodes.

    Raises:
        ModelError: the file is damaged or unsafe.
    """
    model = inline_functions(read_model(path))
    reader = TensorReader(path.parent)
    known = {item.name: item for item in model.graph.initializer}
    result: dict[str, Array] = {}
    for node, name in zip(model.graph.node, node_names(model.graph.node), strict=True):
        if node.op_type == "BatchNormalization" and node.input[1] in known:
            tensor = known[node.input[1]]
            result[name] = reader.read(tensor, f"initialiser '{tensor.name}'").astype("float64")
    return result
