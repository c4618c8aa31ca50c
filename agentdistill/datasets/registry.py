"""Which data sets there are, and where they lie."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

from agentdistill.datasets.record import DataSet
from agentdistill.errors import UserError, nearest
from agentdistill.faults import described
from agentdistill.registration import load_plugins

VARIABLE = "AGENTDISTILL_DATA"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_known: dict[str, DataSet | str] = {}


def register_dataset(name: str, entry: DataSet | str) -> None:
    """Make a data set known to `agentdistill data`.

    Args:
        name: of its folder below `AGENTDISTILL_DATA`.
        entry: the data set, or `module:ATTRIBUTE`, which is imported when it is asked for.

    Raises:
        UserError: for a name that is no folder's.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"a data set cannot be named {name!r}: it is a folder's name, of letters, digits, '_', '-' and '.'")
    _known[name] = entry


def unregister_dataset(name: str) -> None:
    """Forget a data set, if it is known."""
    _known.pop(name, None)


def names() -> list[str]:
    """Names of the registered data sets, plugins' included."""
    load_plugins()
    return sorted(_known)


def find(name: str) -> DataSet:
    """A registered data set.

    Raises:
        UserError: when there is none of this name, or its module cannot be imported.
    """
    load_plugins()
    if name not in _known:
        raise UserError(f"there is no data set '{name}'{nearest(name, _known)}")
    entry = _known[name]
    if isinstance(entry, str):
        module, _, attribute = entry.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # a plugin's module may fail in any way
            raise UserError(f"the data set '{name}' cannot be loaded from '{entry}': {described(error)}") from error
        if not isinstance(found, DataSet):
            raise UserError(f"the data set '{name}' cannot be loaded: '{entry}' is a {type(found).__name__} and no DataSet")
        _known[name] = entry = found
    return entry


def remedy(name: str, file: str = "") -> str:
    """See `DataSet.remedy`; an empty string where no such data set is registered."""
    load_plugins()
    return find(name).remedy(file) if name in _known else ""


def root(at: str | Path | None = None) -> Path | None:
    """The folder below which data sets lie: `at`, or the one that `AGENTDISTILL_DATA` names; None where neither is given.

    Raises:
        UserError: where `at` is an empty string.
    """
    if at is not None and not str(at).strip():
        raise UserError("the folder of the data sets is an empty name; name it, or leave it out")
    found = os.environ.get(VARIABLE) if at is None else at
    return Path(found).expanduser() if found else None
