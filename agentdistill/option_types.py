"""Whether an environment's options are of the types that its signature names."""

from __future__ import annotations

import inspect
import numbers
import os
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_PLAIN: Mapping[Any, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (numbers.Integral,)),
    float: ("a number", (numbers.Real,)),
    str: ("text", (str,)),
    os.PathLike: ("a path", (os.PathLike,)),
    type(None): ("null", (type(None),)),
}


def misfit(creator: Callable[..., Any], options: Mapping[str, Any]) -> str:
    """A sentence's end for the first option of a wrong type, such as `'max_turns' is 'ten' but must be a whole number`.

    Only true or false, numbers, text, null, literals, lists and mappings are looked at; what has another annotation, or none,
    is the environment's own affair, and so is a value that is the default. YAML has neither tuples nor sets, so a list fits
    wherever one of these is named.

    Returns:
        An empty string where all fit.
    """
    taken = inspect.signature(creator).parameters
    try:
        hints = get_type_hints(creator.__init__ if isinstance(creator, type) else creator)  # type: ignore[misc]
    except Exception:  # names that exist for type checkers only, or whatever somebody's annotation does
        return ""
    for name, value in options.items():
        if name in hints and name in taken and value is not taken[name].default and not _fits(value, hints[name]):
            return f"'{name}' is {value!r} but must be {' or '.join(dict.fromkeys(_words(hints[name])))}"
    return ""


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    parts = _parts(hint)
    # A notebook's paths are paths; where text may also be a mapping or a list, it is a name.
    if isinstance(value, os.PathLike) and str in parts and all(part in (str, type(None)) for part in parts):
        return True
    return any(_fits_one(value, part) for part in parts)


def _fits_one(value: Any, hint: Any) -> bool:
    hint = os.PathLike if get_origin(hint) is os.PathLike else hint
    if hint in _PLAIN:
        return isinstance(value, _PLAIN[hint][1]) and (hint is bool or not isinstance(value, bool))
    origin = get_origin(hint) or hint
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(hint))
    if _kind(origin) is Mapping:
        return isinstance(value, Mapping)
    if _kind(origin) is Iterable:
        if isinstance(value, str):  # one name instead of a list of them: environments take it, or have a better word for it
            return True
        inner = get_args(hint)[:1] if origin is not tuple else ()
        listed = isinstance(value, Iterable) and not isinstance(value, bytes | Mapping)
        # Only what can be walked through twice is looked into.
        return listed and (not inner or not isinstance(value, Collection) or all(_fits(each, inner[0]) for each in value))
    return True


def _kind(origin: Any) -> Any:
    """`Mapping` or `Iterable` for the classes of either; None for all others."""
    if not isinstance(origin, type) or origin in (str, bytes):
        return None
    if issubclass(origin, Mapping):
        return Mapping
    standard = origin.__module__ in ("builtins", "collections.abc")
    return Iterable if standard and issubclass(origin, Iterable) else None


def _words(hint: Any) -> Iterable[str]:
    for part in _parts(hint):
        origin = get_origin(part) or part
        if origin in _PLAIN:
            yield _PLAIN[origin][0]
        elif origin is Literal:
            yield from map(repr, get_args(part))
        elif _kind(origin) is Mapping:
            yield "a mapping"
        elif _kind(origin) is Iterable:
            inner = get_args(part)[:1] if origin is not tuple else ()
            yield f"a list of {' or '.join(_words(inner[0]))}" if inner else "a list"
        else:
            yield getattr(part, "__name__", str(part))
