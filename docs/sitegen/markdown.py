"""Markdown from docstrings and signatures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import griffe
from pydantic import ConfigDict, create_model

from agentdistill import fields

_PAPER = re.compile(r"arXiv (\d{4}\.\d{5})")


@dataclass(frozen=True)
class Doc:
    """A docstring in parts: its text, what it says of each argument, and what is raised."""

    text: str
    arguments: dict[str, str] = field(default_factory=dict)
    raises: list[str] = field(default_factory=list)


def parse(text: str) -> Doc:
    """A Google-style docstring in parts; `Attributes` count as arguments, which they are of dataclasses."""
    told: list[str] = []
    arguments: dict[str, str] = {}
    raises: list[str] = []
    for part in griffe.Docstring(inspect.cleandoc(text), lineno=1).parse("google", warnings=False):
        if part.kind is griffe.DocstringSectionKind.text:
            told.append(part.value)
        elif part.kind in (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes):
            for item in part.value:
                for name in item.name.split(", "):
                    arguments[name.strip()] = item.description
        elif part.kind is griffe.DocstringSectionKind.raises:
            raises += [f"`{item.annotation}` {item.description}" for item in part.value]
    return Doc("\n\n".join(told), arguments, raises)


def plain(text: str) -> str:
    """Text of the code as Markdown: `<name>` outside of code stays to be read, and is no tag."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars and line breaks in cells do not end them."""
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in rows]
    lines = [list(head), ["---"] * len(head), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def settings(function: Callable[..., Any], said: dict[str, str], *, keyword_only: bool = True) -> str:
    """A table of a callable's settings: name, type, default, meaning; empty where it has none."""
    shape: dict[str, Any] = {}
    for name, each in inspect.signature(function, eval_str=True).parameters.items():
        kinds = (each.KEYWORD_ONLY,) if keyword_only else (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)
        if each.kind in kinds and name != "self":
            empty = inspect.Parameter.empty
            annotation = Any if each.annotation is empty else each.annotation
            shape[name] = (annotation, ... if each.default is empty else each.default)
    if not shape:
        return ""
    model = create_model("Settings", __config__=ConfigDict(arbitrary_types_allowed=True, protected_namespaces=()), **shape)
    rows = [
        [f"`{row.name}`", row.kind, f"`{row.default}`" if row.default else "required", said.get(row.name, "")]
        for row in fields.rows(model)
    ]
    return table(["setting", "type", "default", ""], rows)


def papers(text: str) -> str:
    """The text with every arXiv number as a link."""
    return _PAPER.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)
