"""Errors meant for people: one sentence that says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


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
    """The name of the spelling that is most like a word, the first by alphabet among equals; empty where none is like it."""
    close = difflib.get_close_matches(word, spelled, n=len(spelled) or 1, cutoff=0.6)
    best = min(close, key=lambda each: (-difflib.SequenceMatcher(None, each, word).ratio(), each), default=None)
    return "" if best is None else spelled[best]
