r"""Answers said by a relation: `m + n = 204` is 204 and `0 \le x < 1` is [0, 1)."""

from __future__ import annotations

import re

_LETTERS = (
    "[Aa]lpha|[Bb]eta|[Gg]amma|[Dd]elta|epsilon|zeta|eta|[Tt]heta|kappa|[Ll]ambda|mu|nu|xi|rho|[Ss]igma|tau|[Pp]hi|chi|[Pp]si|"
    "[Oo]mega|ell"
)
_GREEK = rf"\\(?:{_LETTERS})(?![a-zA-Z])"
_SYMBOL = rf"(?:{_GREEK}|[A-Za-z])(?:_(?:\w|\{{[^{{}}]*\}})|'|\^\{{?\\prime\}}?)*"
_NAME = re.compile(
    rf"{_SYMBOL}(?:\([^()=]*\))?|[A-Za-z][A-Za-z ]*|\|{_SYMBOL}+\||"
    r"\\(?:angle|overline|triangle|widehat)\s*\{?\s*[A-Z]{1,4}\s*\}?|\\(?:text|mathrm|mbox)\s*\{[A-Za-z ]*\}"
)
_SUM = re.compile(rf"(?:{_SYMBOL}|[-+*/^(){{}}\s\d]|\\(?:cdot|times|frac|sqrt)(?![a-z]))*")
_ORDER = re.compile(r"(<|>|\\le(?![a-z])|\\ge(?![a-z]))")


def is_label(text: str) -> bool:
    r"""Whether what stands before an `=` only names the value after it: a name, or a sum of two names or more.

    With one name it is an equation: `2x = 10` says that x is 5. Numbers are none either: they have to be equal.
    """
    text = text.strip()
    if _NAME.fullmatch(text):
        return "not" not in text.split()
    names = {name for name in re.findall(_SYMBOL, re.sub(r"\\(?:cdot|times|frac|sqrt)", "", text)) if name not in ("e", "i")}
    return len(names) > 1 and not re.search(r"(?<!\\)\b[A-Za-z]{3}", text) and _SUM.fullmatch(text) is not None


def interval(text: str) -> str | None:
    """The values of a name between bounds (`x > 3`), or of one "or" another, as intervals; None where it says no such thing."""
    parts = [_interval(each) for each in re.split(r"(?:\\text\s*\{)?\s*\bor\b\s*\}?", text)]
    return None if None in parts else r"\cup ".join(part for part in parts if part)


def _interval(text: str) -> str | None:
    parts = [each.strip() for each in _ORDER.split(text)]
    if len(parts) == 3:
        if re.fullmatch(_SYMBOL, parts[2]) and not re.fullmatch(_SYMBOL, parts[0]):
            parts = [*parts, *{"<": ("<", r"\infty"), ">": (">", r"-\infty")}[_strict(parts[1])]]
        elif re.fullmatch(_SYMBOL, parts[0]):
            parts = [*{"<": (r"-\infty", "<"), ">": (r"\infty", ">")}[_strict(parts[1])], *parts]
    if len(parts) != 5 or not re.fullmatch(_SYMBOL, parts[2]) or _strict(parts[1]) != _strict(parts[3]):
        return None
    if _strict(parts[1]) == ">":
        parts.reverse()
    opened, closed = ("[" if parts[1][0] == "\\" else "("), ("]" if parts[3][0] == "\\" else ")")
    return f"{opened}{parts[0]},{parts[4]}{closed}"


def _strict(order: str) -> str:
    return {r"\le": "<", r"\ge": ">"}.get(order, order)
