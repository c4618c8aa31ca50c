"""Where the data of environments lies: folders below the one that `AGENTDISTILL_DATA` names."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agentdistill.datasets import remedy, root
from agentdistill.environment import Requirement
from agentdistill.errors import UserError

_OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}


def data_folder(name: str) -> Path:
    """The folder `$AGENTDISTILL_DATA/name`.

    Raises:
        UserError: when the variable is not set or there is no such folder; it says how to get the data set.
    """
    top = root()
    if top is None:
        raise UserError(f"the environment variable AGENTDISTILL_DATA is not set; {_advice(name)}")
    folder = top / name
    if not folder.is_dir():
        raise UserError(f"there is no folder '{folder}'; {_advice(name)}")
    return folder


def needs_data(name: str) -> Requirement:
    """The folder `$AGENTDISTILL_DATA/name`, as a requirement of an environment."""

    def missing() -> str:
        top = root()
        if top is not None and (top / name).is_dir():
            return ""
        return f"needs AGENTDISTILL_DATA/{name}: {_advice(name)}"

    return missing


def read_text(path: Path) -> str:
    """The text of a data file.

    Raises:
        UserError: naming the file, when it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a text file, which may be compressed (`.gz`, `.xz`).

    Raises:
        UserError: naming the file, when it is missing or damaged.
    """
    try:
        with _OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
            yield from file
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise _unreadable(path, error) from error


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON-lines file, which may be compressed (`.gz`, `.xz`).

    Raises:
        UserError: naming the file, when it is missing or damaged.
    """
    for line in read_lines(path):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _unreadable(path, error) from error


def count_rows(path: Path) -> int:
    """The number of lines of a file that are not empty; as `read_lines` otherwise."""
    return sum(bool(line.strip()) for line in read_lines(path))


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or f"it is damaged ({error})"
    how = remedy(path.parent.name, path.name)
    return UserError(f"the data file '{path}' cannot be read: {reason}; import it again{': ' + how if how else ''}")


def _advice(name: str) -> str:
    """What to do where a data set is not to be found."""
    how = remedy(name)
    if how and root() is not None:
        return how
    return f"set AGENTDISTILL_DATA to the folder that holds {name}/{', or to a new one, ' + how if how else ''}"
