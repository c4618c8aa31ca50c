"""The page: one HTML file that needs nothing from anywhere.

What comes from trajectories stands in it only as base64 of gzip of JSON, in blocks that are no script; the page's own code
decodes a block when something of it is looked at, and shows text as text. A content security policy lets no other script run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentdistill.errors import UserError
from agentdistill.report.text import visible
from agentdistill.viewer.derive import derive, scorers_of
from agentdistill.viewer.encode import Json, numbers, summary, text
from agentdistill.viewer.source import STOPS, Source, iteration_of
from agentdistill.viewer.tokens import Pieces

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("core", "data", "colour", "filter", "list", "charts", "detail", "hover", "app")
_CHUNK = 200_000  # characters of JSON a block: decoded in a few milliseconds
_MOST = 64  # trajectories a block


@dataclass(slots=True)
class Blocks:
    """Compressed blocks of trajectories, and in which one each is."""

    texts: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    rows: list[Json] = field(default_factory=list)
    _pending: list[tuple[Json, str, str]] = field(default_factory=list)

    def add(self, row: Json, said: Json, measured: Json) -> None:
        """Take one trajectory."""
        self._pending.append((row, _json(said), _json(measured)))
        size = sum(len(words) + len(values) for _, words, values in self._pending)
        if size >= _CHUNK or len(self._pending) >= _MOST:
            self.close()

    def close(self) -> None:
        """End the block that is being filled."""
        if not self._pending:
            return
        for index, (row, _, _) in enumerate(self._pending):
            self.rows.append(row | {"chunk": [len(self.texts), index]})
        self.texts.append(_pack("[" + ",".join(words for _, words, _ in self._pending) + "]"))
        self.numbers.append(_pack("[" + ",".join(values for _, _, values in self._pending) + "]"))
        self._pending.clear()


def build(source: Source) -> Iterator[str]:
    """The page's HTML, in parts.

    Raises:
        UserError: when not one trajectory can be read.
    """
    say, blocks = Pieces(source.decoder()), Blocks()
    scorers: list[str] = []  # as they are met: a column a scorer, those of earlier rows filled up below
    for batch, items in source.read():
        iteration = iteration_of(batch)
        scorers += [name for name in scorers_of(items) if name not in scorers]
        for item, derived in zip(items, derive(items, source.method, iteration, source.note), strict=True):
            row = summary(item, batch, iteration, scorers)
            blocks.add(row, text(item, say), numbers(item, derived, scorers, say))
    blocks.close()
    if not blocks.rows:
        raise UserError("; ".join(source.run.notes) or f"the store of '{source.run.path}' holds no trajectories to view")
    for row in blocks.rows:
        for name in ("kl", "kl_max"):
            row[name] += [None] * (len(scorers) - len(row[name]))
    return _assemble(source, blocks, scorers)


def _assemble(source: Source, blocks: Blocks, scorers: Sequence[str]) -> Iterator[str]:
    """The parts in the order a browser wants them: the list can be shown before the trajectories have arrived."""
    index = {
        "run": visible(source.run.name), "scorers": [visible(name) for name in scorers], "facts": _facts(source),
        "notes": [visible(note) for note in source.run.notes], "depth": source.depth, "max_turns": source.max_turns,
        "rows": _columns(blocks.rows), "chunks": len(blocks.texts), "stops": STOPS,
        "teacher": scorers.index(source.teacher) if source.teacher in scorers else 0,
    }  # fmt: skip
    style = (ASSETS / "viewer.css").read_text(encoding="utf-8")
    bodies = [(ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    script = '"use strict";\n(() => {\n' + "\n".join(bodies) + "})();\n"
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; base-uri 'none'"
    page = (ASSETS / "viewer.html").read_text(encoding="utf-8")
    head, _, rest = page.partition("<!-- data -->")
    values = {"policy": html.escape(policy), "title": html.escape(visible(source.run.name)), "style": style}
    for name, value in values.items():
        head = head.replace(f"<!-- {name} -->", value)
    yield head
    yield _block("index", _pack(_json(index)))
    yield f"<script>{script}</script>\n"
    for kind, packed in (("text", blocks.texts), ("numbers", blocks.numbers)):
        for number, each in enumerate(packed):
            yield _block(f"{kind}-{number}", each)
    yield rest


def _facts(source: Source) -> Json:
    method = source.method
    own = method.step_weight if method is not None else None
    return {
        "method": "" if method is None else visible(_method_in_words(source)),
        "schedule": source.schedule,
        "weights": "" if own is None or own.name == "none" else own.name,
        "sod": own.params if own is not None and own.name == "sod" else {},
        "gate": "" if method is None or method.gate.name == "none" else method.gate.name,
    }


def _method_in_words(source: Source) -> str:
    """The axes that say something: `signal opd, step weight sod`."""
    method = source.method
    assert method is not None
    axes = ("signal", "baseline", "divergence", "step_weight", "gate", "rl", "selection")
    named = {axis: getattr(method, axis).name for axis in axes}
    return ", ".join(f"{axis.replace('_', ' ')} {name}" for axis, name in named.items() if name != "none")


def _columns(rows: Sequence[Json]) -> Json:
    """Rows as columns; a column of text that repeats itself as its distinct values and each row's place among them."""
    out: Json = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows]
        if isinstance(values[0], str) and len(known := list(dict.fromkeys(values))) < len(values):
            place = {value: index for index, value in enumerate(known)}
            out[name] = {"values": known, "at": [place[value] for value in values]}
        else:
            out[name] = values
    return out


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _pack(value: str) -> str:
    return base64.b64encode(gzip.compress(value.encode("ascii"), compresslevel=6, mtime=0)).decode("ascii")


def _block(name: str, packed: str) -> str:
    return f'<script type="application/octet-stream" id="{name}">{packed}</script>\n'


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode("ascii")
