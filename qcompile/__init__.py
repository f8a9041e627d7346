"""qcompile: a hardware-oriented quantization compiler for medical segmentation networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcompile.sim.network import Network

__version__ = "0.1.0"


def load(path: Path | str) -> Network:
    """The simulator of a network file that `--target sim` wrote.

    Raises:
        ModelError: the file is missing, damaged or breaks a rule.
    """
    # Imported here so that `qcompile --help` need not wait for numpy.
    from qcompile.sim.network import load as load_network

    return load_network(path)
