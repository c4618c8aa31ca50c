"""`search` over a folder of documents, by BM25 (Robertson and Zaragoza 2009), kept in memory.

search_tool("docs")                                    # in Python
tools: [{search: {folder: docs}}]                      # in an experiment
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentdistill.errors import UserError, nearest
from agentdistill.faults import one_line
from agentdistill.tool import Tool, tool

SUFFIXES = (".txt", ".md", ".jsonl")
PASSAGE = 600  # most characters of a passage, which is what is found and shown
MAX_TITLE = 80
MAX_RESULTS = 10
MAX_CHARS = MAX_RESULTS * (PASSAGE + MAX_TITLE + 100)
MAX_QUERY = 1_000
_WORD = re.compile(r"\w+")
_HEADING = re.compile(r"^#{1,6}[ \t]+(.+)$", re.MULTILINE)
_TEXT_FIELDS = ("text", "contents", "content", "body")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, with the document's title and its path in the folder."""

    title: str
    source: str
    text: str


class Index:
    """Passages, and what finds them. The same query gives the same passages in the same order.

    Args:
        passages: at least one.
    """

    def __init__(self, passages: list[Passage]) -> None:
        import bm25s

        self.passages = passages
        # Titles count for the passages under them.
        words = [_words(f"{each.title} {each.text}") for each in passages]
        self._known = {word for each in words for word in each}
        self._bm25 = bm25s.BM25()
        if self._known:
            self._bm25.index(words, show_progress=False)

    def find(self, query: str, k: int) -> list[Passage]:
        """At most `k` passages that share a word with the query, the best first, ties in the folder's order."""
        words = [word for word in dict.fromkeys(_words(query[:MAX_QUERY])) if word in self._known]
        if not words:
            return []
        scores = np.asarray(self._bm25.get_scores(words), dtype=np.float64)
        best = np.argsort(-scores, kind="stable")[:k]
        return [self.passages[i] for i in best if scores[i] > 0]


def search_tool(folder: str, k: int = 5, name: str = "search") -> Tool:
    """The tool `search` over the `.txt`, `.md` and `.jsonl` files of a folder and its subfolders.

    A line of JSON is a document of its own, with `text` (or `contents`, `content`, `body`) and, if it has one, `title`.

    Args:
        folder: path of the folder; it is read now, and once for all tools over it while its files do not change.
        k: how many passages a search shows when the model does not say.
        name: what the model calls the tool.

    Raises:
        UserError: for a folder that is missing or without documents, a file that cannot be read, or where bm25s is missing.
    """
    if not 1 <= k <= MAX_RESULTS:
        raise UserError(f"search shows 1 to {MAX_RESULTS} passages, not {k}")
    index = _open(Path(folder).expanduser())
    usual = k

    @tool(name=name, max_chars=MAX_CHARS, timeout=None)
    def search(query: str, k: int = usual) -> str:
        """Search the documents and read the passages that fit best.

        Args:
            query: words to look for
            k: how many passages to show, at most 10
        """
        found = index.find(query, min(max(k, 1), MAX_RESULTS))
        if not found:
            return "Nothing was found; try other words."
        return "\n\n".join(f"[{rank}] {each.title} ({each.source})\n{each.text}" for rank, each in enumerate(found, 1))

    return search


def read_folder(folder: Path) -> list[Passage]:
    """Passages of a folder's documents, in the order of their paths.

    Raises:
        UserError: naming the file, and the line, that cannot be read.
    """
    passages: list[Passage] = []
    for path in _files(folder):
        source = one_line(path.relative_to(folder).as_posix())  # a line feed in a name would look like another result
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise UserError(f"document '{path}' cannot be read: {reason}") from error
        if path.suffix == ".jsonl":
            for line, row in _rows(path, text):
                title = str(row.get("title") or f"{path.stem}, line {line}")
                passages += _passages(title, f"{source}:{line}", _text_of(f"{path}:{line}", row))
        else:
            heading = _HEADING.search(text) if path.suffix == ".md" else None
            passages += _passages(heading[1] if heading else path.stem, source, text)
    return passages


def split(text: str, limit: int = PASSAGE) -> list[str]:
    """Pieces of at most `limit` characters: whole paragraphs where they fit, else cut between words, else anywhere."""
    pieces: list[str] = []
    current = ""
    for paragraph in re.split(r"\n[ \t]*\n", text):
        rest = " ".join(paragraph.split())
        if current and rest and len(current) + 1 + len(rest) > limit:
            pieces.append(current)
            current = ""
        start = 0  # an index, since cutting the front off a long text again and again takes the square of its length
        while len(rest) - start > limit:
            at = rest.rfind(" ", start + 1, start + limit + 1)
            at = start + limit if at < 0 else at
            pieces.append(rest[start:at])
            start = at + (rest[at] == " ")
        rest = rest[start:]
        current = f"{current}\n{rest}" if current and rest else current or rest
    return [*pieces, current] if current else pieces


def _open(folder: Path) -> Index:
    if not folder.is_dir():
        raise UserError(
            f"search needs a folder of documents, and '{folder}' {'is none' if folder.exists() else 'does not exist'}"
        )
    try:
        import bm25s  # noqa: F401
    except ImportError as error:
        raise UserError("search needs bm25s: pip install 'agentdistill[tools]'") from error
    folder = folder.resolve()
    stamps = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in _files(folder))
    return _index(folder, stamps)


@functools.lru_cache(maxsize=8)
def _index(folder: Path, stamps: tuple[tuple[str, int, int], ...]) -> Index:
    """The index of a folder in one state; many environments share it."""
    passages = read_folder(folder)
    if not passages:
        raise UserError(f"search found no text in '{folder}'; it reads {', '.join(SUFFIXES)} files")
    return Index(passages)


def _files(folder: Path) -> list[Path]:
    """The documents, hidden files and folders left out."""
    found = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for count, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}:{count} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}:{count} is not a JSON object")
            yield count, row


def _text_of(place: str, row: dict[str, Any]) -> str:
    for field in _TEXT_FIELDS:
        if isinstance(row.get(field), str):
            return str(row[field])
    raise UserError(f"{place} has no field 'text'{nearest('text', row)}")


def _passages(title: str, source: str, text: str) -> list[Passage]:
    title = " ".join(title.split())[:MAX_TITLE]
    return [Passage(title, source, piece) for piece in split(text)]


def _words(text: str) -> list[str]:
    """Words of any script, without regard to case; compatibility forms (full width, ligatures) count as the plain ones."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
