"""Raw arrays on disk: one file each, little-endian, without a header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentdistill.errors import UserError

# Every array of a packed catalogue; what is in them say `Index` and `Catalogue`.
TYPES = {
    "products": "u1",
    "product_starts": "<i8",
    "prices": "<f8",
    "category": "<u2",
    "query": "<u4",
    "terms": "u1",
    "term_starts": "<i8",
    "posting_starts": "<i8",
    "docs": "<i4",
    "counts": "<u2",
    "lengths": "u1",
    **{
        f"{kind}_{part}": type_
        for kind in ("synthetic", "human")
        for part, type_ in {"product": "<i4", "choice": "<i4", "limit": "<f4", "weight": "<f8"}.items()
    },
}


def path_of(folder: Path, name: str) -> Path:
    """The file of an array."""
    return folder / f"{name}.bin"


def write(folder: Path, name: str, values: Any) -> None:
    """Write an array, converted to its type on disk."""
    np.asarray(values, dtype=TYPES[name]).tofile(path_of(folder, name))


def read(folder: Path, name: str, length: int, map_file: bool) -> NDArray[Any]:
    """An array of a known length, mapped or read into memory.

    Raises:
        UserError: when the file is missing or of another size.
    """
    path, kind = path_of(folder, name), np.dtype(TYPES[name])
    size = path.stat().st_size if path.is_file() else -1
    if size != length * kind.itemsize:
        what = "is missing" if size < 0 else f"has {size:,} bytes and not {length * kind.itemsize:,}"
        raise UserError(f"the data file '{path}' {what}; import the official WebShop files again")
    if map_file and length:
        return np.asarray(np.memmap(path, dtype=kind, mode="r"))  # a plain array is cheaper to slice
    return np.fromfile(path, dtype=kind)


def itemsize(name: str) -> int:
    """Bytes of one element of an array."""
    return np.dtype(TYPES[name]).itemsize
