"""The house's one rule of imports: downwards, by the list in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import fnmatch
import functools
import re
from pathlib import Path

import pytest

import agentdistill

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "agentdistill"
BESIDE = {"envs", "tools"}  # what people add: they are found by name, and import what is named for them
PROGRAMS = {"signals/catalogue.py"}  # makes a page of the documentation of everything that is registered
LATE = {("verbs.py", "api")}  # a module that is also a verb finds its function when it is called


@functools.cache
def lines() -> list[list[str]]:
    """The layers' patterns, the highest first."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("Imports run one way")[2].partition("\n(`envs`")[0]
    return [re.split(r"\s{2,}", line.strip())[0].split(", ") for line in text.splitlines() if line.startswith("    ")]


def place(name: str) -> int:
    """A module's line; an exact name goes before a pattern."""
    found = [(pattern != name, i) for i, line in enumerate(lines()) for pattern in line if fnmatch.fnmatchcase(name, pattern)]
    assert found, f"agentdistill.{name} stands on no line of CONTRIBUTING.md's list"
    return min(found)[1]


def is_module(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def imported(path: Path) -> set[str]:
    """The first names below `agentdistill` that a file imports, wherever in it."""
    out: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "agentdistill":
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agentdistill."):
            out.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            out |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("agentdistill.")}
    return set(filter(is_module, out))


FILES = sorted(
    path
    for top in (PACKAGE, ROOT / "curricula")
    for path in top.rglob("*.py")
    if path.name != "__init__.py" or path.parent != PACKAGE
)


def unit(path: Path) -> tuple[str, str]:
    """A file's place in the package, and the first name of it."""
    inside = path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT)
    return inside.as_posix(), inside.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [pytest.param(path, id=unit(path)[0]) for path in FILES if unit(path)[1] not in BESIDE])
def test_a_file_imports_from_its_own_line_or_below(path: Path) -> None:
    name, own = unit(path)
    for other in imported(path) - {own} - BESIDE:
        if name not in PROGRAMS and (name, other) not in LATE:
            assert place(own) <= place(other), f"{name} imports agentdistill.{other}, which stands on a line above"


@pytest.mark.parametrize("path", [pytest.param(path, id=unit(path)[0]) for path in FILES if unit(path)[1] not in BESIDE])
def test_the_engine_imports_no_environment_and_no_tool_by_name(path: Path) -> None:
    assert not imported(path) & BESIDE


def test_no_file_asks_the_package_for_a_module_that_has_a_verbs_name() -> None:
    """It would get the verb, and all that this imports, where nothing has imported the module yet."""
    asked = {
        f"{path.relative_to(ROOT)}: {alias.name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "agentdistill"
        for alias in node.names
        if alias.name in agentdistill._VERBS and is_module(alias.name)
    }
    assert not asked


def test_every_name_on_the_list_is_a_module() -> None:
    there = {unit(path)[1] for path in FILES}
    assert not [pattern for line in lines() for pattern in line if not fnmatch.filter(there, pattern)]
