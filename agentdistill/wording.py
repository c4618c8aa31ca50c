"""What pydantic complains of, in plain words: `must be a number, not 'abc'`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

_KIND = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "string": "text",
    "dict": "a mapping", "mapping": "a mapping", "model": "a mapping", "list": "a list", "tuple": "a list",
}  # fmt: skip
_WANTED = {
    "greater_than": "be greater than {gt}", "greater_than_equal": "be at least {ge}", "less_than": "be less than {lt}",
    "less_than_equal": "be at most {le}", "multiple_of": "be a multiple of {multiple_of}", "literal_error": "be {expected}",
    "finite_number": "be a finite number", "string_too_short": "not be empty", "invalid_key": "have names as keys",
    "too_long": "have at most {max_length} entries", "too_short": "have at least {min_length} entries",
}  # fmt: skip
_LONGEST = 80


def no_truth_for_a_number(annotation: Any, value: Any) -> Any:
    """`value`, unless it is true or false where a number belongs: Python counts true as 1, and `lr: true` means something else.

    Raises:
        ValueError: then.
    """
    if isinstance(value, bool) and annotation in (int, float, int | None, float | None):
        raise ValueError(f"must be a number, not {str(value).lower()}")
    return value


def shown(value: object) -> str:
    """A value as errors quote it: its `repr`, shortened in the middle where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 20]} … {text[-15:]}"


def place(error: ErrorDetails) -> str:
    """The dotted name of the field that is meant; an entry of a list or a key counts as the field itself."""
    return ".".join(str(part) for part in error["loc"] if part != "[key]" and not isinstance(part, int))


def sentence(error: ErrorDetails, name: str) -> str:
    """What is wrong with the field that the reader knows as `name`.

    A validator's own `ValueError("must …")` is said of the field too; one that begins otherwise is a sentence already.
    """
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        own = str(context["error"])
        return f"{name} {own}" if own.startswith("must ") else own
    if kind == "missing":
        entry = error["loc"][-1] if error["loc"] else None
        return f"{name} needs an entry {entry + 1}" if isinstance(entry, int) else f"{name} is missing"
    return f"{name} must {_wanted(kind, context, error)}, not {shown(error['input'])}"


def _wanted(kind: str, context: Mapping[str, Any], error: ErrorDetails) -> str:
    if error["loc"] and error["loc"][-1] == "[key]":
        kind = "invalid_key"
    if kind in _WANTED:
        return _WANTED[kind].format(**{key: f"{v:g}" if isinstance(v, float) else v for key, v in context.items()})
    family, _, complaint = kind.partition("_")
    if family in _KIND and complaint in ("type", "parsing", "parsing_size", "from_float", "unicode", "attributes_type"):
        return f"be {_KIND[family]}"
    return f"be something else ({error['msg'].lower()})"
