"""Whether a command is to compile networks at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMATS = ("wbits", "abits", "quantizer", "first_last_bits")
LAYERS = ("layers", "inputs")


def says_formats(given: Mapping[str, Any]) -> bool:
    """Whether flags, or the file of `--config`, say anything of formats.

    Raises:
        UsageError: the file is damaged.
    """
    from qcompile.config import load_config

    said = {name for name in FORMATS if given[name] is not None}
    if given["config"] is not None:
        said |= set(load_config(given["config"])) & {*FORMATS, *LAYERS}
    return bool(said)
