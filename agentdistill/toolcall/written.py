"""One call written out as people and models write them: `name(arg="x", n=2)`, `name[text]`, or a JSON object."""

from __future__ import annotations

import ast
import math
import re
import warnings
from typing import Any

from agentdistill.toolcall.base import Call, MalformedError
from agentdistill.toolcall.values import MAX_DEPTH, call_of, checked, decode

MAX_WRITTEN = 20_000  # characters of a call in Python's syntax; JSON has no limit
PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_BRACKETS = re.compile(rf"({PLAIN_NAME.pattern})\s?\[(.*)\]", re.DOTALL)
_FENCE = re.compile(r"```[a-z]{0,10}\n?(.*?)\n?```", re.DOTALL)
_CONSTANTS = {"true": True, "false": False, "null": None}


def unfenced(text: str) -> str:
    """`text` without white space, and without the code fence when it is all in one."""
    text = text.strip()
    whole = _FENCE.fullmatch(text) if text.startswith("```") else None
    return whole[1].strip() if whole else text


def read_written(text: str) -> Call:
    """The call that `text` is.

    Raises:
        MalformedError: when it is none.
    """
    text = unfenced(text)
    if not text:
        raise MalformedError('is empty; write name(argument="value") in it')
    if text.startswith("{"):
        value, end = decode(text)
        if text[end:].strip():
            raise MalformedError(f"has text after its JSON object: '{text[end:].strip()[:40]}'")
        return call_of(value, ("name", "action", "tool"), ("arguments", "parameters", "action_input", "args", "input"))
    if PLAIN_NAME.fullmatch(text):
        return Call(text, {})
    if brackets := _BRACKETS.fullmatch(text):
        return checked(Call(brackets[1], {}, (brackets[2].strip(),) if brackets[2].strip() else ()))
    return checked(_python(text))


def _python(text: str) -> Call:
    """A call in Python's syntax. Its literals are read off the syntax tree; nothing is evaluated."""
    if len(text) > MAX_WRITTEN:
        raise MalformedError(f"is longer than {MAX_WRITTEN} characters; write it as JSON")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as "\d", to standard error
            tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        what = getattr(error, "msg", None) or "it cannot be read"
        raise MalformedError(f'is not a call ({str(what)[:80]}); write name(argument="value")') from None
    if not isinstance(tree, ast.Call) or not (name := _dotted(tree.func)):
        raise MalformedError('is not a call; write name(argument="value")')
    arguments: dict[str, Any] = {}
    for keyword in tree.keywords:
        if keyword.arg is None:
            raise MalformedError("unpacks its arguments; write each by name")
        if keyword.arg in arguments:
            raise MalformedError(f"gives the argument '{keyword.arg[:40]}' twice")
        arguments[keyword.arg] = _literal(keyword.value, MAX_DEPTH)
    positional = tuple(_literal(item, MAX_DEPTH) for item in tree.args)
    if len(positional) == 1 and isinstance(positional[0], dict) and not arguments:  # name({"argument": "value"})
        return Call(name, positional[0])
    return Call(name, arguments, positional)


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and len(parts) < 8:
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _literal(node: ast.expr, depth: int) -> Any:
    """The value of a literal, Python's or JSON's."""
    if depth == 0:
        raise MalformedError(f"is nested more than {MAX_DEPTH} deep")
    match node:
        case ast.Constant(value=str() | bool() | int() | None as value):
            return value
        case ast.Constant(value=float() as value) if math.isfinite(value):
            return value
        case ast.Constant(value=float()):
            raise MalformedError("holds a number that is too large")
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int() | float() as value)):
            number = _literal(ast.Constant(value), depth)
            return -number if isinstance(sign, ast.USub) else number
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_literal(item, depth - 1) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _literal(item, depth - 1) for key, item in zip(keys, values, strict=True)}
    raise MalformedError(f"has an argument that is no literal: '{_source(node)}'; write numbers, strings, lists or objects")


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise MalformedError("has an object whose keys are not strings")


def _source(node: ast.expr) -> str:
    try:
        return ast.unparse(node)[:40]
    except (RecursionError, ValueError):
        return type(node).__name__
