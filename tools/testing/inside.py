"""What runs inside the two sandbox sessions of a grading: values as text, the candidate's side, the tests' side.

This file is sent to a sandbox as source text, so it imports the standard library only. Values cross between the sessions
as JSON: plain scalars as themselves, everything else as `[tag, content]`. Nothing is ever unpickled or evaluated, and what
is read has the plain types of the table below, whatever subclass, proxy or liar the candidate returned.
"""

from __future__ import annotations

import base64
import builtins
import collections
import decimal
import fractions
import json
import queue
import random
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

LONGEST = 60_000  # characters of one encoded value
_DEEPEST = 60
_EXACT_INT = 1 << 53
_FACTORIES: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
    "iterator": iter,
}
_MAPPINGS: dict[str, Callable[[list[tuple[Any, Any]]], Any]] = {
    "dict": dict,
    "OrderedDict": collections.OrderedDict,
    "Counter": lambda pairs: collections.Counter(dict(pairs)),
    "keys": lambda pairs: dict(pairs).keys(),
    "values": lambda pairs: dict(pairs).values(),
    "items": lambda pairs: dict(pairs).items(),
}
_FROM_CONTENT: dict[str, Callable[[Any], Any]] = {
    "range": lambda content: range(*map(decode, content)),
    "complex": lambda content: complex(*content),
    "opaque": lambda content: Opaque(str(content[0])[:60], content[1] is True),
    "int": lambda text: int(text, 16),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "Decimal": decimal.Decimal,
    "Fraction": fractions.Fraction,
}
_VIEWS = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}


class Unsupported(Exception):
    """A value that cannot cross, such as a function."""


class Opaque:
    """Stands in the tests for a returned value that cannot cross (a match, an instance): equal to nothing but itself."""

    def __init__(self, kind: str, truth: bool) -> None:
        self.kind, self.truth = kind, truth

    def __bool__(self) -> bool:
        return self.truth

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Lost(Exception):
    """The candidate raised something that is no built-in exception; the message names it."""


def encode(value: Any, depth: int = 0, opaque: bool = True) -> Any:
    """`value` as JSON material. What cannot cross becomes `Opaque` where that is allowed.

    Raises:
        Unsupported: for such values where it is not, and for deep nesting.
    """
    if depth > _DEEPEST:
        raise Unsupported("a value nested too deeply")
    if value is None or value is True or value is False:
        return value
    for base, write in _SCALARS:
        if isinstance(value, base):
            return write(value)
    if (found := _elements(value)) is not None:
        return [found[0], [encode(each, depth + 1, opaque) for each in found[1]]]
    if (pairs := _pairs(value)) is not None:
        return [pairs[0], [[encode(each, depth + 1, opaque) for each in pair] for pair in pairs[1]]]
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = encode(value.item(), depth + 1, opaque)
    elif opaque:
        value = ["opaque", [str(type(value).__name__)[:60], bool(value)]]
    else:
        raise Unsupported(f"a {type(value).__name__}")
    return value


def _int(value: int) -> Any:
    plain = int.__add__(value, 0)
    return plain if abs(plain) < _EXACT_INT else ["int", hex(plain)]


def _complex(value: complex) -> Any:
    plain = complex.__add__(value, 0)
    return ["complex", [plain.real, plain.imag]]


# The base types' own methods, so that a subclass's overridden ones have no say in what crosses.
_SCALARS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, _int),
    (float, float.__float__),
    (str, str.__str__),
    (complex, _complex),
    (bytes, lambda value: ["bytes", bytes.hex(value)]),
    (bytearray, lambda value: ["bytearray", bytearray.hex(value)]),
    (decimal.Decimal, lambda value: ["Decimal", decimal.Decimal.__str__(value)]),
    (fractions.Fraction, lambda value: ["Fraction", fractions.Fraction.__str__(value)]),
)
_SEQUENCES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (list, list.__iter__),
    (tuple, tuple.__iter__),
    (set, set.__iter__),
    (frozenset, frozenset.__iter__),
    (collections.deque, collections.deque.__iter__),
)


def _elements(value: Any) -> tuple[str, list[Any]] | None:
    if isinstance(value, range):
        return "range", [value.start, value.stop, value.step]
    for base, elements in _SEQUENCES:
        if isinstance(value, base):
            return base.__name__, list(elements(value))
    if isinstance(value, map | filter | zip | reversed | enumerate | types.GeneratorType):
        return "iterator", [each for _, each in zip(range(LONGEST), value, strict=False)]
    return None


def _pairs(value: Any) -> tuple[str, list[tuple[Any, Any]]] | None:
    if isinstance(value, dict):
        for base in (collections.OrderedDict, collections.Counter):
            if isinstance(value, base):
                return base.__name__, list(dict.items(value))
        return "dict", list(dict.items(value))
    kind = _VIEWS.get(type(value))
    if kind == "items":
        return kind, list(value)
    if kind == "keys":
        return kind, [(each, None) for each in value]
    return None if kind is None else (kind, list(enumerate(value)))


def decode(data: Any) -> Any:
    """The value of JSON material.

    Raises:
        Exception: of any kind, when it was not made by `encode`.
    """
    if isinstance(data, dict):
        raise ValueError("an object")
    if not isinstance(data, list):
        return data
    kind, content = data
    if kind in _MAPPINGS:
        return _MAPPINGS[kind]([(decode(key), decode(each)) for key, each in content])
    if kind in _FACTORIES:
        return _FACTORIES[kind]([decode(each) for each in content])
    return _FROM_CONTENT[kind](content)


def _pack(message: dict[str, Any]) -> str:
    """JSON in base64: a text whose repr needs no escapes, so that the host reads it without a parser of Python."""
    return base64.b64encode(json.dumps(message).encode()).decode()


class Candidate:
    """The side that holds the model's code, in a module of its own named `solution`."""

    def __init__(self) -> None:
        self.module = types.ModuleType("solution")

    def load(self, source: str) -> None:
        """Execute the solution, or a part of it after another; whatever it raises is raised."""
        sys.modules["solution"] = self.module
        exec(compile(source, "<solution>", "exec"), self.module.__dict__)

    def call(self, name: str, text: str) -> str:
        """Call a function of the solution; its value or its exception, packed."""
        args, kwargs = decode(json.loads(text))
        if name not in self.module.__dict__:
            return _pack({"raised": ["NameError", f"the solution defines no {name}"]})
        try:
            value = self.module.__dict__[name](*args, **kwargs)
        except Exception as error:
            return _pack({"raised": [type(error).__name__, str(error)[:500]]})
        try:
            answer = _pack({"value": encode(value)})
        except Unsupported:
            answer = _pack({"value": ["opaque", ["deep", True]]})
        return answer if len(answer) <= LONGEST else _pack({"value": ["opaque", ["long", True]]})


class Tests:
    """The side that holds the tests. They run in a thread, which waits whenever the host has to ask the candidate."""

    def __init__(self) -> None:
        self.requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start(self, source: str, functions: list[str]) -> str:
        """Run tests that call `functions`; the first request, packed.

        A request is `{"call": name, "arguments": text}`, `{"passed": true}`, `{"failed": reason}` or
        `{"unsupported": what}`.
        """
        random.seed(0)  # a session serves many suites, and a verdict must not depend on which came before
        module = types.ModuleType("tests")
        module.__dict__.update({name: self._proxy(name) for name in functions})
        module.__dict__["_proxies"] = {name: self._proxy(name) for name in functions}
        threading.Thread(target=self._run, args=(source, module), daemon=True).start()
        return _pack(self.requests.get())

    def answer(self, text: str) -> str:
        """Give the candidate's answer to the last request; the next one."""
        self.answers.put(text)
        return _pack(self.requests.get())

    def _run(self, source: str, module: types.ModuleType) -> None:
        try:
            exec(compile(source, "<tests>", "exec"), module.__dict__)
        except Unsupported as error:
            self.requests.put({"unsupported": str(error)})
        except BaseException as error:
            self.requests.put({"failed": f"{type(error).__name__}: {error}"[:1000]})
        else:
            self.requests.put({"passed": True})

    def _proxy(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            arguments = json.dumps(encode((args, kwargs), opaque=False))
            self.requests.put({"call": name, "arguments": arguments})
            return _read(self.answers.get())

        call.__name__ = name
        return call


def _read(text: str) -> Any:
    """The value in a candidate's answer, which may be any text at all."""
    try:
        answer = json.loads(text)
        raised = answer.get("raised")
        value = None if raised else decode(answer["value"])
    except Exception as error:
        value, raised = None, ["Lost", f"unreadable answer ({type(error).__name__})"]
    if raised:
        raise _exception(str(raised[0]), str(raised[1]))
    return value


def _exception(kind: str, message: str) -> Exception:
    """A built-in exception by name, so that tests can expect it; else `Lost`."""
    found = getattr(builtins, kind, None)
    if isinstance(found, type) and issubclass(found, Exception) and not issubclass(found, UnicodeError):
        return found(message)
    return Lost(f"{kind}: {message}")
