"""Arrays in a .npz archive whose bytes depend on nothing but the arrays."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import numpy as np

from qcompile.types import Array

_EPOCH = (1980, 1, 1, 0, 0, 0)


def archive_bytes(arrays: Mapping[str, Array]) -> bytes:
    """An archive with the given members; nothing in it is pickled.

    Args:
        arrays: by name; names must be safe as paths (`safe_member`).
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array, order="C"), allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content.getvalue())
    return buffer.getvalue()


def safe_member(name: str) -> str:
    """A name that no extraction can place elsewhere: characters that are no letter, digit, dot or
    hyphen become `_`; no dots at the ends."""
    return "".join(char if char.isalnum() or char in "._-" else "_" for char in name).strip(".")
