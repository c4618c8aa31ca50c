"""The tables of registered methods in docs/methods.md, written from the registries and docstrings.

    python -m agentdistill.signals.catalogue        # rewrites them between their markers

A row is as true as the docstring it is read from: what an entry is comes from the first sentence, the paper is the arXiv
number of the function or, where that names none, of its module.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentdistill.curricula import SCHEDULES
from agentdistill.signals import AXES, COEFFICIENTS, PRESETS, Method
from agentdistill.signals.method import ORIGINS
from agentdistill.signals.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- {}: written by python -m agentdistill.signals.catalogue -->", "<!-- end of {} -->"
REGISTRIES: dict[str, Registry[Any]] = {**AXES, "coefficient": COEFFICIENTS, "schedule": SCHEDULES}

_PAPER = re.compile(r"arXiv\s(\d{4}\.\d{5})")
_HEAD = re.compile(r"^`\[[^`]*`( nats| bool)?: ")
_SHAPE = re.compile(r"[,;]? `\[[^`]*`( nats)?|,? \(arXiv [^)]*\)")


def entries() -> str:
    """A Markdown table, a row an entry of every axis and a row a schedule; `none`, which is nothing, is left out."""
    rows = [["axis", "name", "what", "paper", "needs", "default settings", "held by"]]
    for axis, registry in REGISTRIES.items():
        for name in registry.names():
            found = registry.describe(name)
            if name == "none" or not found.function.__module__.startswith("agentdistill."):
                continue
            rows.append(
                [
                    axis, f"`{name}`", formula(found.function), paper(found.function),
                    ", ".join(sorted(found.needs)), _settings(found.settings), held_by(name, found.function),
                ]
            )  # fmt: skip
    return _table(rows)


def presets() -> str:
    """A Markdown table, a row a preset of the package."""
    rows = [["preset", "axes that are not the default", "schedule", "needs", "source"]]
    for name in sorted(PRESETS):
        if ORIGINS[name].source:
            axes = "; ".join(f"{axis} {_choice(value)}" for axis, value in PRESETS[name].items())
            needs = ", ".join(sorted(Method.load(name).needs))
            rows.append([f"`{name}`", axes, ORIGINS[name].schedule or "", needs, ORIGINS[name].source])
    return _table(rows)


def formula(function: Any) -> str:
    """What a docstring's first sentence says, up to a semicolon, without the shape of the result and the paper."""
    first = _doc(function).split("\n\n")[0].replace("\n", " ")
    return re.split(r"[;.](?: |$)", _SHAPE.sub("", _HEAD.sub("", first)))[0]


def paper(function: Any) -> str:
    """`arXiv` and its number; the module's source in words where it has no number; a dash where it has none."""
    module = sys.modules[function.__module__].__doc__ or ""
    numbers = _PAPER.findall(_doc(function)) or sorted(set(_PAPER.findall(module)))
    if numbers:
        return "arXiv " + ", ".join(dict.fromkeys(numbers))
    source = re.search(r"^Source: (.+?)[;.]", module, re.MULTILINE)
    return source[1] if source else "–"


def held_by(name: str, function: Any) -> str:
    """The test file that mirrors the function's, or the first that names it; nothing outside the repository."""
    home = function.__module__.rpartition(".")[2]
    places = [ROOT / "tests" / part for part in ("signals", "curricula")]
    for place in places:
        if (place / f"test_{home}.py").is_file():
            return f"`{place.name}/test_{home}.py`"
    files = [file for place in places if place.is_dir() for file in sorted(place.glob("test_*.py"))]
    return next((f"`{f.parent.name}/{f.name}`" for f in files if f'"{name}"' in f.read_text(encoding="utf-8")), "")


def renew(page: str) -> str:
    """The page with both tables written anew between their markers."""
    for name, text in (("entries", entries()), ("presets", presets())):
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{text}{end}{after}"
    return page


def _doc(function: Any) -> str:
    return inspect.getdoc(function) or ""


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {'null' if value is None else value}" for key, value in settings.items())


def _choice(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    rest = _settings({key: item for key, item in value.items() if key != "kind"})
    return f"{value['kind']} ({rest})" if rest else str(value["kind"])


def _table(rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    cells.insert(1, ["---"] * len(rows[0]))
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


if __name__ == "__main__":
    PAGE.write_text(renew(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
