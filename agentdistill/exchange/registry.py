"""The formats by name: what can be read, and what can be written."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentdistill.errors import UserError, nearest
from agentdistill.exchange.conversation import Conversation

Record = tuple[str, Conversation | str]
"""Where something stands in its file, such as `line 3`, and the conversation, or a sentence on why it is none."""
Reader = Callable[[Path], Iterator[Record]]
Writer = Callable[..., int]
HOMES = ("chat_jsonl", "inspect_log", "verifiers_log", "jsonl", "parquet", "sft", "wandb_table")


@dataclass(frozen=True, slots=True)
class Format:
    """A format.

    Attributes:
        about: what it is, in a few words.
        read: gives the records of a file, one in memory at a time where the format allows; None: it is only written.
        write: writes a `source.Source` to a path that does not exist yet, and gives the number of rows; None: it is only read.
        options: what else `write` takes, with the values that each may have, its default first.
    """

    name: str
    about: str
    read: Reader | None = None
    write: Writer | None = None
    options: Mapping[str, tuple[str, ...]] | None = None


_FORMATS: dict[str, Format] = {}


def register(entry: Format) -> Format:
    """Make a format known by its name.

    Raises:
        UserError: when another has it.
    """
    if entry.name in _FORMATS and _FORMATS[entry.name] != entry:
        raise UserError(f"the format '{entry.name}' is registered twice")
    _FORMATS[entry.name] = entry
    return entry


def formats() -> dict[str, Format]:
    """Every format by name."""
    for home in HOMES:
        importlib.import_module(f"agentdistill.exchange.{home}")
    return dict(sorted(_FORMATS.items()))


def reader(name: str) -> Reader:
    """What reads a format.

    Raises:
        UserError: for an unknown format, or one that is only written.
    """
    known = formats()
    if name in known and (found := known[name].read) is not None:
        return found
    able = [each for each, entry in known.items() if entry.read is not None]
    if name in known:
        raise UserError(f"format '{name}' is written only; those that can be read are {', '.join(able)}")
    raise UserError(f"there is no format '{name}' to read{nearest(name, able)}")


def resolve(name: str, options: Mapping[str, str | None]) -> tuple[Writer, dict[str, Any]]:
    """What writes a format, and its options filled in.

    Args:
        options: as named by `Format.options`; None: not given.

    Raises:
        UserError: for an unknown format or one that is only read, and for an option that it does not take.
    """
    known = formats()
    able = [each for each, entry in known.items() if entry.write is not None]
    if name not in able:
        if name in known:
            raise UserError(f"format '{name}' is read only; those that can be written are {', '.join(able)}")
        raise UserError(f"there is no format '{name}' to write{nearest(name, able)}")
    entry = known[name]
    takes = entry.options or {}
    chosen = {option: values[0] for option, values in takes.items()}
    for option, value in options.items():
        if value is None:
            continue
        if option not in takes:
            others = [each for each in able if option in (known[each].options or {})]
            raise UserError(f"format '{name}' takes no {option}, which is of {' and '.join(others) or 'no format'}")
        if value not in takes[option]:
            raise UserError(f"{option} '{value}' is none of format '{name}'{nearest(value, takes[option])}")
        chosen[option] = value
    assert entry.write is not None
    return entry.write, chosen
