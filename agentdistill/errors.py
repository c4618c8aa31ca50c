"""Errors meant for people: one sentence that says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from itertools import takewhile


class UserError(Exception):
    """Something the user can mend. The command line prints its sentence without a traceback."""


class StoreError(UserError):
    """A stored file that cannot be read, or a store that cannot be written."""


def nearest(word: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or a short list of what there is, or an empty string. Case is no obstacle."""
    names = sorted({str(name) for name in known})
    if best := _closest(str(word), {name: name for name in names}) or _closest(
        str(word).casefold(), {name.casefold(): name for name in reversed(names)}
    ):
        return f"; did you mean '{best}'?"
    return f"; known: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}" if names else ""


def _closest(word: str, spelled: Mapping[str, str]) -> str:
    """The spelling most like a word, of equals the one that begins and ends like it; empty where none is like it."""

    def likeness(each: str) -> tuple[float, int, str]:
        return difflib.SequenceMatcher(None, each, word).ratio(), _begun(each, word) + _begun(each[::-1], word[::-1]), each

    close = difflib.get_close_matches(word, spelled, n=len(spelled) or 1, cutoff=0.6)
    best = max(close, key=likeness, default=None)
    return "" if best is None else spelled[best]


def _begun(first: str, second: str) -> int:
    """How many letters both begin with."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))
