r"""Which block of a message is the solution. The function that is asked for is `f`."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.envs.code.blocks import Block, blocks, solution
from agentdistill.envs.code.data import Problem
from agentdistill.tools.testing.grader import Suite
from tests.steps import lines_run

CODE = "def f(x):\n    return x\n"
BODY = "    return x\n"
WHOLE = Problem("p", "test", "", "f", "", "", Suite("", ()), (), "")
STUB = Problem("p", "test", "", "f", "", "def f(x):\n", Suite("", ()), (), "")


def looks(problem: Problem) -> list[Callable[[str], bool]]:
    return [problem.defined_by, problem.completed_by]


def fenced(code: str, language: str = "python", fence: str = "```") -> str:
    return f"{fence}{language}\n{code.rstrip()}\n{fence}\n"


@pytest.mark.parametrize(
    "text",
    [
        fenced(CODE),
        *(fenced(CODE, language) for language in ("", "py", "py3", "Python", "PYTHON", "python3", "python3.11", "{.python}")),
        fenced(CODE, 'python title="a.py"'),
        fenced(CODE, " python "),
        fenced(CODE, fence="~~~"),
        fenced(CODE, fence="````"),
        fenced(CODE).replace("\n", "\r\n"),
        f"Here it is: {fenced(CODE)}",
        f"Here it is.\n```python\n{CODE}",
        f"Here it is.\n```\n{CODE}",
        f"1. Here it is:\n   ```python\n   {CODE.replace(chr(10), chr(10) + '   ')}```",
        f"```python\n{CODE}``` That is all.",
        f"{fenced(CODE)}Its use:\n{fenced('print(f(1))')}",
        f"{fenced(CODE)}Its use:\n{fenced('>>> f(1)')}",
        f"{fenced(CODE)}Its use:\n{fenced('from solution import f' + chr(10) + 'assert f(1) == 1')}",
        f"{fenced(CODE)}Its use:\n{fenced('f == f' + chr(10) + 'result = f(1)')}",
        f"{fenced(CODE)}Output:\n{fenced('1', '')}",
        f"{fenced(CODE)}Output:\n{fenced('1', 'text')}",
        f"{fenced(CODE)}Output:\n{fenced('  1', '')}",
        f"{fenced('pip install x', 'bash')}Then:\n{fenced(CODE)}",
        f"{fenced('def f(x): return 0')}Better:\n{fenced(CODE)}",
        f"```python\nx = 1\nOnce more:\n{fenced(CODE)}",
        f"I write it between ```python\nand ```.\n{fenced(CODE)}",
        f"{fenced(CODE)}In another language:\n{fenced('def f(x)', 'ruby')}",
    ],
)
def test_the_solution_is_found(text: str) -> None:
    for problem in (WHOLE, STUB):
        found = solution(text, *looks(problem))
        assert found is not None
        assert found.strip() == CODE.strip()


@pytest.mark.parametrize("code", ["f = lambda x: x\n", "f: object = 1\n", "async def f(): pass\n", "class f: pass\n"])
def test_other_ways_of_defining_count(code: str) -> None:
    assert solution(f"{fenced(code)}{fenced('print(f(1))')}", *looks(WHOLE)) == code


def test_the_rest_of_a_stub_is_a_solution_where_there_is_a_stub() -> None:
    text = f"{fenced(BODY)}Its use:\n{fenced('print(f(1))')}"
    assert solution(text, *looks(STUB)) == BODY
    assert solution(text, *looks(WHOLE)) == "print(f(1))\n"


def test_where_no_block_defines_the_function_it_is_the_last_marked_as_python() -> None:
    text = f"{fenced('x = 1')}{fenced('y = 1')}{fenced('z = 1', '')}{fenced('z', 'text')}"
    assert solution(text, *looks(WHOLE)) == "y = 1\n"


@pytest.mark.parametrize(
    "text", ["", "f(x) = x", "`f`", fenced("1", ""), fenced(CODE, "ruby"), "```", "```python", "```python\n\n"]
)
def test_a_message_without_one_hands_nothing_in(text: str) -> None:
    assert solution(text, *looks(WHOLE)) is None


def test_a_fence_inside_a_docstring_ends_nothing() -> None:
    code = 'def f(x):\n    """\n    ```\n    f(1)\n    ```\n    """\n    return x\n'
    assert blocks(fenced(code)) == [Block("python", code)]


PIECES = st.sampled_from(
    ["```", "~~~", "````", "python", "py", "\n", "\n", "    ", "def f(): pass", "\r", "text", "`", " ", "{"]
)


@given(st.lists(PIECES).map("".join))
def test_what_is_found_is_lines_of_the_message(text: str) -> None:
    lines = {line.lstrip(" \t") for line in re.split(r"\r\n|\r|\n", text)}
    for block in blocks(text):
        assert {line.lstrip(" \t") for line in block.text.removesuffix("\n").split("\n")} <= lines | {""}


@pytest.mark.parametrize(
    "piece", ["```", "`", "~", "```a", "``` ", " ", "a ", "```\n", "```python\n", "```py`", "a```python ", "\n", "\t`"]
)
def test_a_megabyte_of_anything_takes_steps_in_proportion(piece: str) -> None:
    few, many = (lines_run(lambda: blocks(piece * (size // len(piece)))) for size in (62_500, 1_000_000))  # noqa: B023
    assert many < 20 * few + 10_000
