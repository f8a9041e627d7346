"""Reading arrays from files that nobody vouches for: no pickles, sizes checked."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from qcompile.errors import DataError
from qcompile.types import Array

MAX_ARRAY_BYTES = 1 << 30
"""A larger array is refused: it is split more easily than waited for."""
PIECE_BYTES = 1 << 22
DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    TypeError,
    OverflowError,
    LookupError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zlib.error,
    zipfile.BadZipFile,
)
"""What zipfile, zlib, numpy, pillow and nibabel raise at damaged files; encrypted ones are
RuntimeErrors."""


@dataclass(frozen=True)
class ArrayFile:
    """A `.npz` file (or one `.npy` as a nameless entry), read entry by entry."""

    path: Path
    keys: tuple[str, ...]

    def read(self, key: str, kinds: str = "biuf") -> Array:
        """
        Args:
            key: of the array; '' for a `.npy`.
            kinds: of elements that are taken, as `numpy.dtype.kind`.

        Raises:
            DataError: the entry is missing, damaged, too large or not made of numbers.
        """
        label = f"{self.path.name}:{key}" if key else self.path.name
        if key not in self.keys:
            raise DataError(f"{self.path.name}: has no array '{key}'; it has {_listing(self.keys)}")
        try:
            if not key:
                with self.path.open("rb") as stream:
                    return _read_npy(stream, label, kinds)
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{key}.npy") as stream:
                return _read_npy(stream, label, kinds)
        except DAMAGED as error:
            raise DataError(f"{label}: cannot be read as an array ({error})") from None


def open_arrays(path: Path) -> ArrayFile:
    """
    Raises:
        DataError: there is no such file, or it is no `.npz` or `.npy`.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is not a regular file; save the arrays with numpy.savez")
        if path.suffix == ".npy":
            with path.open("rb"):
                return ArrayFile(path, ("",))
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
    except zipfile.BadZipFile:
        raise DataError(f"{path}: is neither .npz nor .npy; save it with numpy.savez") from None
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be opened ({reason})") from None
    if not names:
        raise DataError(f"{path}: holds no arrays; save them with numpy.savez")
    return ArrayFile(path, tuple(name.removesuffix(".npy") for name in names))


def _read_npy(stream: IO[bytes], label: str, kinds: str) -> Array:
    """The array of a `.npy` stream, whose header is believed only after a look at it."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        header = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        header = np.lib.format.read_array_header_2_0(stream)
    else:
        raise DataError(f"{label}: .npy version {version} is not supported; save it anew")
    shape, fortran, dtype = header
    if dtype.hasobject or dtype.kind not in kinds:
        raise DataError(
            f"{label}: has elements of type {dtype}; only numbers are read, never pickled objects"
        )
    count = 1
    for size in shape:
        count *= int(size)
    total = count * dtype.itemsize
    if total > MAX_ARRAY_BYTES or any(size < 0 for size in shape):
        raise DataError(
            f"{label}: shape {list(shape)} takes {total >> 20} MiB, the limit is "
            f"{MAX_ARRAY_BYTES >> 20} MiB; split the data"
        )
    # Piece by piece into its place: a whole read would need the memory twice.
    flat = np.empty(count, dtype=dtype)
    place = flat.view(np.uint8)
    done = 0
    while done < total:
        piece = stream.read(min(PIECE_BYTES, total - done))
        if not piece:
            raise DataError(f"{label}: ends after {done} of {total} bytes; the file is damaged")
        place[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    return flat.reshape(shape, order="F" if fortran else "C")


def _listing(names: tuple[str, ...], most: int = 10) -> str:
    shown = ", ".join(f"'{name[:60]}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
