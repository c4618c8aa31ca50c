"""Errors meant for people: one sentence that says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend. The command line prints its sentence without a traceback."""


class StoreError(UserError):
    """A stored file that cannot be read, or a store that cannot be written."""


def nearest(word: object, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or a short list of what there is, or an empty string."""
    names = sorted({str(name) for name in known})
    close = difflib.get_close_matches(str(word), names, n=len(names) or 1, cutoff=0.6)
    if close:  # of equally close ones, the last letter of the alphabet comes first there
        best = min(close, key=lambda name: (-difflib.SequenceMatcher(None, name, str(word)).ratio(), name))
        return f"; did you mean '{best}'?"
    return f"; known: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}" if names else ""
