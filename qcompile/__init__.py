"""qcompile: a hardware-oriented quantization compiler for medical segmentation networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qcompile.errors import QCompileError
from qcompile.options import CompileOptions

if TYPE_CHECKING:
    from qcompile.result import CompileResult
    from qcompile.sim.network import Network

__version__ = "0.1.0"

__all__ = ["CompileOptions", "QCompileError", "__version__", "compile_model", "load"]


def compile_model(model: Path | str, options: CompileOptions | None = None) -> CompileResult:
    """Compiles one ONNX model; `CompileResult.write` writes the files.

    Args:
        model: path of the ONNX file.
        options: what the command line's flags say; defaults if None.

    Raises:
        QCompileError: the model, the data or the options are wrong; the message is one line.
    """
    # Imported here so that `qcompile --help` need not wait for numpy.
    from qcompile.pipeline import compile_model as compile_with_progress

    return compile_with_progress(model, options)


def load(path: Path | str) -> Network:
    """The simulator of a network file that `--target sim` wrote.

    Raises:
        ModelError: the file is missing, damaged or breaks a rule.
    """
    # Imported here so that `qcompile --help` need not wait for numpy.
    from qcompile.sim.network import load as load_network

    return load_network(path)
