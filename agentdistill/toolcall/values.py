"""JSON of model-written text: decoding that says what is wrong, and the checks every call must pass."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from agentdistill.errors import nearest
from agentdistill.toolcall.base import Call, MalformedError

MAX_DEPTH = 32


def dump(value: Any, *, escape: str = "") -> str:
    """`value` as JSON on one line, in which no tag of thinking and no character of `escape` stands plainly.

    What is escaped can occur in JSON's strings only, where `\\u003c` means the same as `<`.
    """
    text = json.dumps(value, ensure_ascii=False)
    for tag in ("<think>", "</think>", *escape):
        text = text.replace(tag, f"\\u{ord(tag[0]):04x}{tag[1:]}")
    return text


def decode(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends.

    Raises:
        MalformedError: when there is none.
    """
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise MalformedError(f"is not valid JSON: {error.msg} at character {error.pos - start}") from None
    except RecursionError:
        raise MalformedError(f"is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise MalformedError(f"is not valid JSON: {str(error)[:100]}") from None


def call_of(value: Any, names: Sequence[str] = ("name",), arguments: Sequence[str] = ("arguments",)) -> Call:
    """A decoded JSON object as a call.

    Args:
        value: what was decoded.
        names: keys that may hold the tool's name, the usual one first.
        arguments: keys that may hold its arguments, the usual one first.

    Raises:
        MalformedError: when it is not one.
    """
    if not isinstance(value, dict):
        raise MalformedError(f"is not a JSON object but {kind(value)}")
    known = (*names, *arguments)
    for key in value:
        if key not in known:
            raise MalformedError(f"has the unknown key '{key[:40]}'{nearest(key[:40], (names[0], arguments[0]))}")
    name = next((value[key] for key in names if key in value), None)
    given: Any = next((value[key] for key in arguments if key in value), {})
    if not isinstance(name, str) or not name:
        raise MalformedError(f'has no "{names[0]}" of a tool')
    if isinstance(given, str):  # OpenAI's form: the arguments object as JSON inside a string
        try:
            given = _DECODER.decode(given)
        except (ValueError, RecursionError):
            raise MalformedError(f'has "{arguments[0]}" that are a string instead of a JSON object') from None
    if not isinstance(given, dict):
        raise MalformedError(f'has "{arguments[0]}" that are not a JSON object but {kind(given)}')
    return checked(Call(name, given))


def checked(call: Call) -> Call:
    """`call` itself when it can be stored, tokenized and written as JSON again.

    Lone surrogates and integers beyond what Python converts (`sys.get_int_max_str_digits`) can not, nor can what is nested
    so deep that it only just could be read.

    Raises:
        MalformedError: when it cannot.
    """
    if depth_exceeds(call.arguments, MAX_DEPTH) or depth_exceeds(list(call.positional), MAX_DEPTH + 1):
        raise MalformedError(f"is nested more than {MAX_DEPTH} deep")
    try:
        json.dumps([call.name, call.arguments, call.positional], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise MalformedError("holds a character that is not valid Unicode") from None
    except ValueError:
        raise MalformedError("holds a number that is too large") from None
    return call


def depth_exceeds(value: Any, limit: int) -> bool:
    """Whether lists and objects nest more than `limit` deep, found level by level, without recursion."""
    level = [value]
    for _ in range(limit):
        nested = (item for item in level if isinstance(item, dict | list))
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    return any(isinstance(item, dict | list) for item in level)


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value


# strict=False: models often write line breaks inside strings, and what they mean is plain.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant, parse_float=_finite)
