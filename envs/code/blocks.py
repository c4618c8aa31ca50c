"""Finding the code in a message: fenced blocks as Markdown has them (CommonMark 4.5), read a little more kindly.

A fence is three or more backticks or tildes. The one that closes a block is as long at least, of the same kind, and indented by
at most three more than the opening one, so that a fence in a docstring ends nothing; text may follow it. A block that the
message ends in needs no closing fence, and one that is marked as Python may open behind other text, or where one still is open.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

# Nothing here backtracks (`*+`), so that no line is scanned twice.
_OPENING = re.compile(r"([ \t]*+)(`{3,}+|~{3,}+)[ \t]*+([^\s`{]*+)[^`]*+")
_LATE_OPENING = re.compile(r"(?<![`~])(`{3,}+|~{3,}+)[ \t]*+(py\S*+)[ \t]*+$", re.IGNORECASE)
_PYTHON = re.compile(r"(?:python|py)[0-9.]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        language: the first word behind the opening fence.
        text: what is in it, without the indentation of its opening fence.
    """

    language: str
    text: str

    @property
    def python(self) -> bool:
        """Whether it is marked as Python, of whatever version."""
        return _PYTHON.fullmatch(self.language) is not None


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a message in order. Line ends become line feeds."""
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None  # indentation, fence and language
    inside: list[str] = []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if opened is not None and not _closes(line, opened[0], opened[1]):
            inside.append(line)
            continue
        following = _opening(line)
        if opened is not None:
            found.append(_block(opened, inside))
            if following is not None and not _PYTHON.fullmatch(following[2]):
                following = None
        opened, inside = following, []
    if opened is not None and any(line.strip() for line in inside):
        found.append(_block(opened, inside))
    return found


def solution(text: str, *looks: Callable[[str], bool]) -> str | None:
    """The block of a message that hands a solution in, or None.

    It is the last one that looks like a solution. What follows a solution is often an example of its use or the output of one,
    in a block of its own. Where no block looks like one it is the last one marked as Python.

    Args:
        looks: whether a block's text is a solution by the look of it, the surest sign first.
    """
    found = [each for each in blocks(text) if each.python or not each.language]
    for like_one in looks:
        if good := [each.text for each in found if like_one(each.text)]:
            return good[-1]
    return next((each.text for each in reversed(found) if each.python), None)


def _opening(line: str) -> tuple[int, str, str] | None:
    if match := _OPENING.fullmatch(line):
        return len(match[1]), match[2], match[3]
    if match := _LATE_OPENING.search(line):
        return 0, match[1], match[2]
    return None


def _closes(line: str, indentation: int, fence: str) -> bool:
    bare = line.lstrip()
    return bare.startswith(fence) and len(line) - len(bare) <= indentation + 3


def _block(opened: tuple[int, str, str], lines: list[str]) -> Block:
    indentation, _, language = opened
    kept = [line[min(indentation, len(line) - len(line.lstrip(" \t"))) :] for line in lines]
    return Block(language, "\n".join(kept) + "\n" if kept else "")
