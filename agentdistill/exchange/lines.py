"""JSON lines: read one at a time, each with its number; written to a temporary name and renamed."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agentdistill.durable import sync
from agentdistill.errors import UserError
from agentdistill.exchange.conversation import BadRecord, Conversation
from agentdistill.exchange.registry import Record

_SURROGATE = re.compile("[\ud800-\udfff]")


def read_lines(path: Path, conversation: Callable[[dict[str, Any]], Conversation]) -> Iterator[Record]:
    """What the lines of a file hold; empty ones are passed over.

    Args:
        conversation: makes a conversation of a line's object, and raises `BadRecord` where it is none.

    Raises:
        UserError: when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for n, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {n}", _record(line, conversation)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror or error}") from error


def _record(line: bytes, conversation: Callable[[dict[str, Any]], Conversation]) -> Conversation | str:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"it cannot be read as JSON: {error}"
    if not isinstance(raw, dict):
        return "it is no JSON object"
    try:
        return conversation(raw)
    except BadRecord as error:
        return str(error)


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one object a line; numbers that are not finite become null. The file appears whole or not at all.

    Returns:
        How many lines.

    Raises:
        UserError: when the disk refuses.
    """
    temporary, n = path.with_name(f".{path.name}.{os.getpid()}.tmp"), 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(as_line(row) + "\n")
                n += 1
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"'{path}' could not be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return n


def as_line(row: Mapping[str, Any]) -> str:
    """One line of JSON. Lone surrogates, which UTF-8 cannot hold, are escaped."""
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(_finite(row), ensure_ascii=False))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
