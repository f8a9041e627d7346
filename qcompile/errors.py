"""Every exception class of qcompile.

A `QCompileError` is something the user can act on: its message is one line that says where
(operator and ONNX node), what is wrong (with the number) and what to do. The command line turns
it into exit code 2 (or the code of the subclass) and shows no traceback. Any other exception is a
bug of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class QCompileError(Exception):
    """Base of all errors a user can cause and mend; `exit_code` is the process's exit status."""

    exit_code = 2
    dumps: Mapping[str, str] = {}
    """The graph after each pass that ran before the error, by file name (only with `dump_ir`)."""

    def __init__(self, message: str) -> None:
        # Names in messages come from files nobody vouches for: no control characters reach a
        # terminal or a log, through the command line or through the Python API.
        line = " ".join(message.split())
        super().__init__("".join(char if char.isprintable() else "?" for char in line))


class UsageError(QCompileError):
    """An option, a configuration file or an API argument is wrong."""


class DataError(QCompileError):
    """Calibration or evaluation data cannot be used."""


class ModelError(QCompileError):
    """The ONNX file is damaged, inconsistent or unsafe."""


class ShapeError(ModelError):
    """Shapes of an operator's inputs do not fit together."""


class GraphError(QCompileError):
    """The graph breaks a structure rule or a rule of its stage."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """One thing the compiler (or a target) refuses, with a way out."""

    operator: str
    node: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.operator} '{self.node}': {self.reason}; {self.advice}"


class UnsupportedError(QCompileError):
    """All unsupported operators of a model at once."""

    def __init__(self, items: Sequence[Unsupported], where: str) -> None:
        self.items = tuple(items)
        listing = " | ".join(str(item) for item in self.items)
        super().__init__(f"{where} does not support {len(self.items)} operator(s): {listing}")


class ToolError(QCompileError):
    """A program we call (the C compiler) is missing or failed."""


class VerificationError(QCompileError):
    """Two executions of one integer graph differ."""

    exit_code = 3


class GateError(QCompileError):
    """A gate such as --min-dice or --max-dice-drop was not met."""

    exit_code = 4
