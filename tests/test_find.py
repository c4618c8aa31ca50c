from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentdistill as ad
from agentdistill.errors import UserError
from agentdistill.find import find_grader, find_tool, import_path, tool_names
from agentdistill.tools.calculator import calculator


@ad.tool
def double_it(n: int) -> int:
    """Double a number."""
    return 2 * n


def plain(n: int) -> int:
    """Return a number."""
    return n


MODULE = '''
import agentdistill as ad
from agentdistill.tool import Tool

@ad.tool
def halve(n: float) -> float:
    """Halve a number."""
    return n / 2

def third(n: float) -> float:
    """Divide by three."""
    return n / 3

def divider(by: float, name: str = "divide") -> Tool:
    def divide(n: float) -> float:
        """Divide a number."""
        return n / by
    return ad.tool(name=name)(divide)

def liar() -> Tool:
    return 3

def close(answer, expected):
    return abs(float(answer) - expected) < 1

number = 3
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current folder, which is not on the import path: so the command `agentdistill` runs."""
    (tmp_path / "lab_arithmetic.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    yield "lab_arithmetic"
    sys.modules.pop("lab_arithmetic", None)


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An installed distribution that announces tools by entry points."""
    site = tmp_path / "site"
    (site / "lab_tools-1.0.dist-info").mkdir(parents=True)
    (site / "lab_tools-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-tools\nVersion: 1.0\n")
    (site / "lab_tools-1.0.dist-info" / "entry_points.txt").write_text(
        textwrap.dedent("""
        [agentdistill.tools]
        third = lab_entry:third
        divider = lab_entry:divider
        broken = lab_entry:nope
        """)
    )
    (site / "lab_entry.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(site))
    yield "lab_entry"
    sys.modules.pop("lab_entry", None)


def test_tools_and_functions_are_taken_as_they_are():
    assert find_tool(double_it) is double_it
    assert find_tool(plain).name == "plain"


def test_names_find_built_in_and_declared_tools():
    assert find_tool("calculator") is calculator
    assert find_tool("double_it") is double_it


def test_a_path_finds_a_tool_or_a_function_in_the_current_folder(module: str):
    assert find_tool(f"{module}:halve").call({"n": 3}).result == "1.5"
    assert find_tool(f"{module}:third").call({"n": 3}).result == "1.0"
    assert find_tool("halve").call({"n": 3}).result == "1.5"  # declared when the module was imported


def test_a_function_that_makes_tools_takes_settings(module: str):
    assert find_tool({f"{module}:divider": {"by": 4, "name": "quarter"}}).name == "quarter"
    assert find_tool({f"{module}:divider": 4}).call({"n": 2}).result == "0.5"


def test_entry_points_announce_tools_and_makers_of_tools(distribution: str):
    assert {"third", "divider", "broken", "calculator", "double_it"} <= set(tool_names())
    assert find_tool("third").call({"n": 3}).result == "1.0"
    assert find_tool({"divider": {"by": 2}}).call({"n": 3}).result == "1.5"
    with pytest.raises(UserError, match="tool 'broken' of lab-tools cannot be loaded from 'lab_entry:nope'"):
        find_tool("broken")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("calculater", "no tool 'calculater'; did you mean 'calculator'"),
        ("", "no tool ''"),
        ("no_such_module:f", "'no_such_module:f' cannot be imported: ModuleNotFoundError"),
        ("lab_arithmetic:halv", "'lab_arithmetic' has no attribute 'halv'; did you mean 'halve'"),
        ("lab_arithmetic:", "has no attribute ''"),
        (":f", "cannot be imported"),
        ("lab_arithmetic:number", "'lab_arithmetic:number' is neither a tool nor a function but of type int"),
        ("lab_arithmetic:divider", "did not accept the settings"),
        ("lab_arithmetic:liar", "'lab_arithmetic:liar' gave no tool but int"),
        ({"lab_arithmetic:divider": {"bye": 3}}, "did you mean 'by'"),
        ({"lab_arithmetic:divider": {1: 2}}, "did not accept the settings"),
        ({"calculator": {"x": 1}}, "tool 'calculator' takes no settings"),
        ({"lab_arithmetic:third": {}}, "takes no settings"),
        ({}, "one name and its settings"),
        ({"a": 1, "b": 2}, "one name and its settings"),
        (3, "3 is neither a tool nor a function nor the name of one"),
    ],
)
def test_what_names_no_tool_is_refused(module: str, spec: Any, said: str):
    with pytest.raises(UserError, match=said):
        find_tool(spec)


def test_a_name_that_two_tools_have_must_be_a_path(module: str, distribution: str):
    find_tool(f"{module}:halve")
    find_tool(f"{distribution}:halve")
    with pytest.raises(UserError, match=r"several tools are named 'halve'.*name the one that is meant as module:attribute"):
        find_tool("halve")


def test_graders_are_found_by_name_and_by_path(module: str):
    assert find_grader("number") is ad.graders.number
    assert find_grader("exact") is ad.graders.exact
    assert find_grader(plain) is plain  # type: ignore[arg-type, comparison-overlap]
    assert find_grader(f"{module}:close")("3.2", 3)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("numbr", "no grader 'numbr'; did you mean 'number'"),
        ("final_answer", "no grader 'final_answer'"),
        ("lab_arithmetic:clos", "did you mean 'close'"),
        ("lab_arithmetic:number", "is no grader but of type int"),
        (None, "a grader is a function .* or the name of one, not None"),
    ],
)
def test_what_names_no_grader_is_refused(module: str, spec: str | None, said: str):
    with pytest.raises(UserError, match=said):
        find_grader(spec)  # type: ignore[arg-type]


def test_importing_from_the_current_folder_leaves_the_import_path_alone(module: str):
    before = list(sys.path)
    import_path(f"{module}:halve")
    assert sys.path == before
