"""The tasks of HumanEval and MBPP (sanitized): question, public examples, hidden tests, canonical solution."""

from __future__ import annotations

import ast
import doctest
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentdistill.envs.data import read_rows, read_text
from agentdistill.tools.testing.grader import Suite

# MBPP's own split by task id; 1 to 10 are its few-shot prompts.
_MBPP_SPLITS = {"prompt": range(1, 11), "test": range(11, 511), "valid": range(511, 601), "train": range(601, 975)}
# Examples that contradict the tests, or are not meant literally.
_WRONG_EXAMPLES = ("HumanEval/47", "HumanEval/80", "HumanEval/130", "HumanEval/148")


@dataclass(frozen=True, slots=True)
class Problem:
    """One task.

    Attributes:
        id, split: as in the data set.
        question: what the model reads.
        entry: name of the function that is asked for.
        preamble: imports and helpers that the question gives, put before a solution.
        stub: the question's source where it is source to be completed, else empty.
        tests: what decides; never shown.
        examples: what `run_tests` shows: `(text, suite)`, all of it in the question already.
        solution: the canonical one.
    """

    id: str
    split: str
    question: str
    entry: str
    preamble: str
    stub: str
    tests: Suite
    examples: tuple[tuple[str, Suite], ...]
    solution: str

    def complete(self, code: str) -> tuple[str, str]:
        """A whole program of what a model wrote, a function or only the rest of the stub: what goes before it, and itself.

        They are two sources, to be executed one after the other, because `from __future__ import ...` must begin its own.
        """
        if self.stub and code[:1] in (" ", "\t") and not _binds(code, self.entry):
            return "", self.stub + code
        return self.preamble, code

    def defined_by(self, code: str) -> bool:
        """Whether code seems to define the function."""
        return _defines(code, self.entry)

    def completed_by(self, code: str) -> bool:
        """Whether code seems to be the rest of the stub."""
        return bool(self.stub) and code[:1] in (" ", "\t") and bool(code.strip())


@functools.cache
def problems(folder: Path, dataset: str) -> list[Problem]:
    """The tasks of `humaneval` (164) or `mbpp` (427), in order.

    Raises:
        UserError: when a file cannot be read.
    """
    if dataset == "humaneval":
        return [read_humaneval(row) for row in read_rows(folder / "HumanEval.jsonl.gz")]
    return [read_mbpp(row) for row in json.loads(read_text(folder / "sanitized-mbpp.json"))]


def read_humaneval(row: dict[str, Any]) -> Problem:
    """A row of HumanEval."""
    prompt, entry = row["prompt"], row["entry_point"]
    preamble = prompt[: prompt.rindex(f"def {entry}(")]
    # The question's helpers are part of the tests' world, but the function under test is the candidate's.
    tests = f"{preamble}\n{entry} = _proxies[{entry!r}]\n{row['test']}\ncheck(_proxies[{entry!r}])\n"
    return Problem(
        id=row["task_id"],
        split="test",
        question=f"Complete this function.\n```python\n{prompt.rstrip()}\n```",
        entry=entry,
        preamble=preamble,
        stub=prompt,
        tests=Suite(tests, (entry,)),
        examples=() if row["task_id"] in _WRONG_EXAMPLES else tuple(_examples(prompt, preamble, entry)),
        solution=prompt + row["canonical_solution"],
    )


def _examples(prompt: str, preamble: str, entry: str) -> list[tuple[str, Suite]]:
    """The examples in the function's docstring that can be run: doctests, and lines such as `f(1) ➞ 2` or `f(1) == 2`."""
    function = next(each for each in ast.parse(prompt).body if isinstance(each, ast.FunctionDef) and each.name == entry)
    doc = ast.get_docstring(function) or ""
    try:
        pairs = [(each.source.strip(), each.want.strip()) for each in doctest.DocTestParser().get_examples(doc)]
    except ValueError:
        pairs = []
    line = re.compile(rf"^[^\w>]*({entry}\(.*?\))\s*(?:==?>?|➞|[-=]>|→|returns?|should return)\s*(.+?)[.;]?$", re.MULTILINE)
    pairs = pairs or [(call, want) for call, want in line.findall(doc) if _is_literal(want)]
    found = []
    for source, want in pairs:
        text = f"assert {source} == {want}"
        if _is_expression(source) and _is_expression(want):
            found.append((text, Suite(f"{preamble}\n{entry} = _proxies[{entry!r}]\n{_telling(text)}", (entry,))))
    return found


def read_mbpp(row: dict[str, Any]) -> Problem:
    """A row of MBPP's sanitized tasks."""
    tests, code = row["test_list"], row["code"]
    entry = _tested(code, tests)
    # Several tests use modules that only the canonical solution imports.
    imports = "\n".join(dict.fromkeys([*row["test_imports"], *_imports(code)]))
    number = int(row["task_id"])
    return Problem(
        id=f"mbpp/{number}",
        split=next((name for name, ids in _MBPP_SPLITS.items() if number in ids), "test"),
        question=f"{row['prompt'].strip()}\nYour function must pass this test:\n```python\n{tests[0]}\n```",
        entry=entry,
        preamble="",
        stub="",
        tests=Suite("\n".join([imports, *tests]), (entry,)),
        examples=((tests[0], Suite(f"{imports}\n{_telling(tests[0])}", (entry,))),),
        solution=code,
    )


def _tested(code: str, tests: list[str]) -> str:
    """The function of the solution that its tests call."""
    defined = [each.name for each in ast.parse(code).body if isinstance(each, ast.FunctionDef)]
    used = {node.id for node in ast.walk(ast.parse("\n".join(tests))) if isinstance(node, ast.Name)}
    found = next((name for name in defined if name in used), None)
    if found is None:
        raise ValueError("its tests call no function that its code defines")
    return found


def _imports(code: str) -> list[str]:
    return [ast.unparse(each) for each in ast.parse(code).body if isinstance(each, ast.Import | ast.ImportFrom)]


def _telling(text: str) -> str:
    """`assert a == b` with the value of `a` as its message; other asserts as they are."""
    tree = ast.parse(text)
    for node in tree.body:
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare):
            node.test.left = ast.NamedExpr(ast.Name("_got", ast.Store()), node.test.left)
            node.msg = ast.parse("'got ' + repr(_got)[:200]", mode="eval").body
    return ast.unparse(ast.fix_missing_locations(tree))


def _is_expression(source: str) -> bool:
    try:
        compile(source, "<example>", "eval")
    except (SyntaxError, ValueError):
        return False
    return True


def _is_literal(source: str) -> bool:
    try:
        ast.literal_eval(source)
    except (SyntaxError, ValueError):
        return False
    return True


def _binds(code: str, name: str) -> bool:
    """Whether model-written source seems to give a name a value, an import included."""
    return _defines(code, name) or re.search(rf"^.*\bimport\b.*\b{name}\b", code, re.MULTILINE) is not None


def _defines(code: str, name: str) -> bool:
    """Whether model-written source seems to define a name; it is not parsed, since parsers can be made to fall over."""
    return re.search(rf"^(?:(?:async\s+)?def\s+{name}\b|class\s+{name}\b|{name}\s*[:=](?!=))", code, re.MULTILINE) is not None
