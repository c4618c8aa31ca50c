"""The documentation's pages and the code blocks in them."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"^( *)```([\w-]+)([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced code block: its page, language, title (a file's name, or empty) and text."""

    page: str
    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of every command in a `bash` block, without comments."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        lines = [re.split(r"\s#\s", line)[0].strip() for line in joined.splitlines()]
        return [shlex.split(line) for line in lines if line and not line.startswith("#")]


def sitegen() -> None:
    """Make the generators importable, as MkDocs does."""
    if str(DOCS) not in sys.path:
        sys.path.insert(0, str(DOCS))


def blocks(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page in order."""
    out = []
    for indent, language, rest, body in _BLOCK.findall(text):
        title = re.search(r'title="([^"]+)"', rest)
        lines = [line.removeprefix(indent) for line in body.splitlines(keepends=True)]
        out.append(Block(page, language, title[1] if title else "", "".join(lines)))
    return out


def written() -> dict[str, str]:
    """Every page in docs/ as it is written, by path."""
    return {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
