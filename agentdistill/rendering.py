"""Any Python value as text for a model to read, bounded in time and size whatever the value is.

Lists, tuples, sets, dicts, generators, dataclasses and pydantic models become JSON on one line, which ends in `…` where it
would grow beyond its bound: a list that contains itself, a generator without an end. They are walked here and not by a
serializer written in C, which holds the interpreter's lock until it is through, so that no deadline could end it. Every
other object says what its own `str` does.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import itertools
import json
import numbers
import re
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pydantic

LONGEST = 200_000  # characters, and so values too: each is written with one at least
_DEEPEST = 64
_DIGITS = 4_300  # what Python itself will write of an integer unless told otherwise
_MORE = "…"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# The base types' own methods: a subclass's overridden ones have no say.
_ITERATORS: tuple[tuple[type, Callable[[Any], Iterator[Any]]], ...] = (
    (list, list.__iter__),
    (tuple, tuple.__iter__),
    (set, set.__iter__),
    (frozenset, frozenset.__iter__),
    (collections.deque, collections.deque.__iter__),
)


def as_text(value: Any, longest: int = LONGEST) -> str:
    """`value` as text: strings, numbers and None as `str` has them, containers as JSON, other objects by their own `str`.

    Only a string may be longer than `longest` characters and a few; it is there already.

    Raises:
        BaseException: whatever a method of the value raises.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, bool | complex):
        return str(value)
    if isinstance(value, float):
        return float.__repr__(value)
    writer = _Writer(longest)
    writer.write(value, 0, quoted=False)
    return "".join(writer.parts)


def said(error: BaseException) -> str:
    """An exception's message, or nothing where it has none or cannot say it."""
    try:
        return str.__str__(str(error))
    except BaseException as problem:
        if is_ctrl_c(problem):
            raise
        return ""


def is_ctrl_c(error: BaseException) -> bool:
    """Whether an exception is the user's wish to stop. Signals reach the main thread; one elsewhere was raised by some code."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


class _Writer:
    """Writes values as JSON until there is no room."""

    def __init__(self, room: int) -> None:
        self.parts: list[str] = []
        self._room = room

    def write(self, value: Any, depth: int, quoted: bool = True) -> None:
        """Write a value; `quoted` is whether text stands in quotes, as in JSON it must."""
        if depth > _DEEPEST:
            self._put(_MORE)
        elif (number := _number(value)) is not None:
            self._put(number)
        elif isinstance(value, dict):
            self._row("{}", dict.items(value), depth)
        elif (elements := _elements(value)) is not None:
            self._row("[]", ((each,) for each in elements), depth)
        elif isinstance(value, pydantic.BaseModel):
            # Its own serializers decide, unless there is too much to hand over at once.
            fits = _unfolds_into(value, self._room)
            self.write(type(value).model_dump(value, by_alias=True) if fits else vars(value), depth + 1, quoted)
        elif dataclasses.is_dataclass(type(value)):
            self._row("{}", _fields(value), depth)
        elif isinstance(value, enum.Enum):
            self.write(value.value, depth + 1, quoted)
        else:
            self._text(value, quoted)

    def _put(self, text: str) -> None:
        self.parts.append(text)
        self._room -= len(text)

    def _row(self, brackets: str, items: Iterable[tuple[Any, ...]], depth: int) -> None:
        self._put(brackets[0])
        for index, (*key, item) in enumerate(items):
            if index:
                self._put(",")
            if self._room <= 0:
                self._put(_MORE)
                break
            for each in key:
                self._text(each if isinstance(each, str) else as_text(each, 200), quoted=True)
                self._put(":")
            self.write(item, depth + 1)
        self._put(brackets[1])

    def _text(self, value: Any, quoted: bool) -> None:
        room = max(self._room, 0)
        if isinstance(value, bytes | bytearray):
            text = bytes(memoryview(value)[: room + 1]).decode("utf-8", "backslashreplace")
        elif isinstance(value, datetime.date | datetime.time):
            text = value.isoformat()
        else:
            text = str.__str__(value if isinstance(value, str) else str(value))
            if not isinstance(value, str) and len(text) < 1_000:  # a default `repr` differs from one process to the next
                text = _ADDRESS.sub("", text)
        if len(text) > room:
            text = text[:room] + _MORE
        self._put(json.dumps(text, ensure_ascii=False) if quoted else text)


def _number(value: Any) -> str | None:
    """A number, a truth value or None as JSON writes it, and as a description where it is too long; None for others."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return json.dumps(float.__float__(value))
    if not isinstance(value, numbers.Integral):
        return None
    whole = int.__int__(value) if isinstance(value, int) else int(value)  # the latter: numpy's
    digits = int(whole.bit_length() * 0.30103) + 1  # log10(2); at most one too many
    return f"<integer of about {digits} digits>" if digits > _DIGITS else json.dumps(whole)


def _elements(value: Any) -> Iterator[Any] | None:
    for base, elements in _ITERATORS:
        if isinstance(value, base):
            return elements(value)
    # Of other iterators, `filter(None, repeat(0))` never comes back from C to be told that it is late.
    return iter(value) if isinstance(value, types.GeneratorType) else None


def _fields(value: Any) -> list[tuple[str, Any]]:
    return [(each.name, getattr(value, each.name)) for each in dataclasses.fields(value) if hasattr(value, each.name)]


def _unfolds_into(value: Any, most: int) -> bool:
    """Whether a value, what is held several times counted as often, unfolds into at most `most` values."""
    waiting, seen = [value], 0
    while waiting and seen + len(waiting) <= most:
        waiting.extend(itertools.islice(_children(waiting.pop()), max(most, 0)))
        seen += 1
    return not waiting


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return dict.values(value)
    if isinstance(value, pydantic.BaseModel):
        return [*vars(value).values(), value.__pydantic_extra__]
    if dataclasses.is_dataclass(type(value)):
        return [item for _, item in _fields(value)]
    return () if isinstance(value, types.GeneratorType) else _elements(value) or ()
