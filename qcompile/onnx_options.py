"""What may be said of an exported ONNX model on the command line."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from qcompile.errors import UsageError

if TYPE_CHECKING:
    from qcompile.options import CompileOptions

ONNX_TARGETS = ("qdq", "qcdq", "qonnx")
"""The targets that are ONNX models, by name."""


class OnnxInput(enum.Enum):
    """What the exported model takes: the original network's floats, or pixels."""

    FLOAT32 = "float32"
    UINT8 = "uint8"


class OnnxWeights(enum.Enum):
    """How weights of at most 4 bits are stored. INT4 halves the file and needs opset 21."""

    INT8 = "int8"
    INT4 = "int4"


ONNX_DEFAULTS: Mapping[str, object] = MappingProxyType(
    {"onnx_input": OnnxInput.FLOAT32, "onnx_weights": OnnxWeights.INT8}
)
"""The options that mean something with an ONNX target only, with their defaults."""


def check_onnx(options: CompileOptions) -> None:
    """
    Raises:
        UsageError: an option is for another target.
    """
    target = options.target.value
    for name, default in ONNX_DEFAULTS.items():
        if target not in ONNX_TARGETS and getattr(options, name) != default:
            raise UsageError(
                f"--{name.replace('_', '-')}: is for --target {', '.join(ONNX_TARGETS)} only, not "
                f"for --target {target}; leave it out or change the target"
            )
    if options.onnx_weights is OnnxWeights.INT4 and target != "qdq":
        raise UsageError(
            f"--onnx-weights int4: is for --target qdq only, not for {target}; leave it out"
        )
    if options.onnx_input is OnnxInput.UINT8 and options.input_kind.value == "float32":
        raise UsageError(
            "--onnx-input uint8: the network takes floats (--input-kind float32, or float data); "
            "leave it out, or give uint8 images"
        )
