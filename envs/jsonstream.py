"""Members of a JSON file that is too large to be read at once, one by one."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from agentdistill.errors import UserError

_CHUNK = 1 << 20
_LARGEST = 1 << 26  # characters of one member; more means that the file is damaged
_GAP = re.compile(r"[\s,]*")
_DELIMITERS = tuple(" \t\r\n,:]}")
_COLON = re.compile(r"[\s:]*")


def elements(path: Path) -> Iterator[Any]:
    """The elements of a file that holds one array; it may be compressed (`.gz`).

    Raises:
        UserError: naming the file, when it is missing or damaged.
    """
    for _, value in _members(path, "[", "]"):
        yield value


def items(path: Path) -> Iterator[tuple[str, Any]]:
    """The keys and values of a file that holds one object; as `elements` otherwise."""
    return _members(path, "{", "}")


def _members(path: Path, opening: str, closing: str) -> Iterator[tuple[str, Any]]:
    try:
        opener: Any = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            yield from _Reader(file, opening, closing)
    except (OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"it is damaged ({error})"
        raise UserError(f"the file '{path}' cannot be read: {reason}; download it again") from error


class _Reader:
    """Decodes a member as soon as all of it is in the buffer; raises ValueError where there is none."""

    def __init__(self, file: TextIO, opening: str, closing: str) -> None:
        self._file, self._keyed, self._closing = file, opening == "{", closing
        self._decode = json.JSONDecoder().raw_decode
        self._buffer, self._at, self._passed, self._ended = "", 0, 0, False
        self._skip(_GAP)
        if not self._buffer.startswith(opening, self._at):
            raise ValueError(f"it does not begin with '{opening}'")
        self._at += 1

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        while True:
            self._skip(_GAP)
            if self._buffer.startswith(self._closing, self._at):
                return
            key = ""
            if self._keyed:
                key = str(self._value())
                self._skip(_COLON)
            yield key, self._value()

    def _skip(self, pattern: re.Pattern[str]) -> None:
        """Go past what matches, so that something other follows unless the file has ended."""
        while True:
            match = pattern.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer) or not self._more():
                return

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._decode(self._buffer, self._at)
            except ValueError as error:
                if len(self._buffer) - self._at > _LARGEST or not self._more():
                    raise ValueError(f"after {self._passed + self._at:,} characters: {error}") from error
                continue
            # Of a number, the first digits alone can be decoded too.
            if self._buffer[end : end + 1] in _DELIMITERS or not self._more():
                self._at = end
                return value

    def _more(self) -> bool:
        """Read on; whether there was more."""
        chunk = "" if self._ended else self._file.read(_CHUNK)
        self._ended = not chunk
        self._passed += self._at
        self._buffer, self._at = self._buffer[self._at :] + chunk, 0
        return bool(chunk)
