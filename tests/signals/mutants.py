"""Break every method in small ways, one at a time, and see that its tests notice.

    python -m tests.signals.mutants [MODULE …]        modules of agentdistill.signals or .curricula; all by default

Three kinds of mutants: a sign is flipped, a mask is dropped, student and teacher are exchanged. The code object of the
function is replaced in a forked process, which then runs the tests of the module. The last line is JSON with the count.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import inspect
import io
import json
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import hypothesis
import numpy as np
import pytest

TABLE = [
    "opd", "gopd", "iwopd", "lightning", "vopd", "selection", "tip", "gate", "kdrl", "gated", "grpo", "ratio", "trrd",
    "importance", "aggregate",
]  # fmt: skip
VOCABULARY = [
    "divergence", "estimators", "opsd", "logit_std", "eakl", "bdkd", "pld", "sinkd", "adpa", "sft", "support",
]  # fmt: skip
GROUPS = [
    ("signals", TABLE, ["test_every_method.py", "test_gradient_oracles.py"]),
    ("curricula", ["sod", "after_error"], ["../signals/test_every_method.py"]),
    ("signals", ["provenance", "dasd", "surrogate", "coefficients"], []),
    ("signals", VOCABULARY, ["test_every_divergence.py", "test_gradient_oracles.py"]),
    ("signals", ["dckd"], ["test_every_method.py", "test_every_divergence.py"]),
    ("signals", ["logspace"], ["test_eakl.py", "test_bdkd.py", "test_support.py", "test_every_divergence.py"]),
]
"""Packages, their modules, and the test files that hold these beside their own."""

SAME = {
    "curricula.sod.step_drift: exchange logprob and teacher": "the size of a difference has no sign",
    "signals.pld.plackett_luce: drop mask in `(beaten - held).masked_fill(never, math.inf).masked_fill(weight == 0, 0.0)` "
    "(no. 0)": "a weight of 0 only ever meets finite numbers",
    "signals.sinkd.sinkhorn: exchange ours and theirs": "both are local: they are only renamed",
}
"""Mutants that compute the same, and why. They are made and not counted."""

SIDES = [("student", "teacher"), ("logprob", "teacher"), ("recomputed", "teacher"), ("log_p", "log_q"), ("ours", "theirs")]
TIMEOUT = 300
"""Seconds in which the tests of a module have to end; many where the machine is busy."""


@dataclass(frozen=True)
class Mutant:
    """A function of a module with one thing wrong in it."""

    module: ModuleType
    function: FunctionType
    change: str
    code: CodeType

    def __str__(self) -> str:
        return f"{self.module.__name__.removeprefix('agentdistill.')}.{self.function.__qualname__}: {self.change}"


def _flip(node: ast.AST) -> ast.AST | None:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return ast.BinOp(node.left, ast.Sub() if isinstance(node.op, ast.Add) else ast.Add(), node.right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        return node.operand
    return None


def _drop(node: ast.AST) -> ast.AST | None:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "on_actions":
            return ast.Subscript(node.func.value, node.args[0], ast.Load())
        if node.func.attr == "masked_fill":
            return node.func.value
        if node.func.attr == "where" and len(node.args) == 3:
            return node.args[1]
    masks = (isinstance(node, ast.Attribute) and node.attr in {"is_action", "mask"}) or (
        isinstance(node, ast.Name) and node.id == "mask" and isinstance(node.ctx, ast.Load)
    )
    if masks:
        return ast.Call(ast.Attribute(ast.Name("_np", ast.Load()), "ones_like", ast.Load()), [node], [])
    return None


class _Put(ast.NodeTransformer):
    """Puts `change(node)` in place of the `index`-th node that it has something for."""

    def __init__(self, change: Callable[[ast.AST], ast.AST | None], index: int) -> None:
        self.change, self.left, self.was = change, index, ""

    def visit(self, node: ast.AST) -> ast.AST:
        new = self.change(node)
        if new is not None:
            if self.left == 0:
                self.left, self.was = -1, ast.unparse(node)
                return new
            self.left -= 1
        return self.generic_visit(node)


class _Exchange(ast.NodeTransformer):
    """Exchanges two names, as variables and as columns."""

    def __init__(self, one: str, other: str) -> None:
        self.names, self.seen = {one: other, other: one}, set[str]()

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._other(node.id), node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant(self._other(node.value)) if isinstance(node.value, str) else node

    def _other(self, name: str) -> str:
        if name in self.names:
            self.seen.add(name)
        return self.names.get(name, name)


def mutants(module: ModuleType) -> Iterator[Mutant]:
    """Every mutant of every function that the module defines."""
    for function in list(vars(module).values()):
        if isinstance(function, FunctionType) and function.__module__ == module.__name__:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
            assert isinstance(tree, ast.FunctionDef)
            tree.decorator_list = []
            if ast.get_docstring(tree):
                tree.body = tree.body[1:]
            for change, broken in _broken(tree):
                yield Mutant(module, function, change, _compiled(module, broken))


def _broken(tree: ast.FunctionDef) -> Iterator[tuple[str, ast.FunctionDef]]:
    for kind, change in (("flip sign", _flip), ("drop mask", _drop)):
        index = 0
        while True:
            copied = copy.deepcopy(tree)
            put = _Put(change, index)
            copied.body = [put.visit(statement) for statement in copied.body]  # type: ignore[misc]
            if put.left >= 0:
                break
            yield f"{kind} in `{put.was}` (no. {index})", copied
            index += 1
    for pair in SIDES:
        copied = copy.deepcopy(tree)
        exchange = _Exchange(*pair)
        copied.body = [exchange.visit(statement) for statement in copied.body]
        if exchange.seen == set(pair):
            yield f"exchange {' and '.join(pair)}", copied


def _compiled(module: ModuleType, tree: ast.FunctionDef) -> CodeType:
    whole = ast.fix_missing_locations(ast.Module([tree], []))
    module.__dict__["_np"] = np
    names = dict(module.__dict__)
    exec(compile(whole, f"<mutant of {module.__name__}>", "exec"), names)
    code: CodeType = names[tree.name].__code__
    return code


def caught(mutant: Mutant, files: list[str]) -> bool:
    """Whether a test fails, in a process of its own, when the mutant stands in for the function."""
    if (child := os.fork()) == 0:
        signal.alarm(TIMEOUT)
        mutant.function.__code__ = mutant.code
        os._exit(any(run(["-x", "--tb=no", file]) for file in files))  # the module's own tests first: most need no more
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1  # one that had to be ended has not been noticed


def run(arguments: list[str]) -> int:
    """What pytest says, without a word."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return int(pytest.main(["-q", "-p", "no:cacheprovider", "--capture=no", *arguments]))


def chosen(names: list[str]) -> Iterator[tuple[ModuleType, list[str]]]:
    """The modules of these names (all without any), each with its test files."""
    here = Path(__file__).parent.parent
    for package, modules, more in GROUPS:
        for name in modules:
            if not names or name in names:
                files = [here / package / file for file in (f"test_{name}.py", *more)]
                yield importlib.import_module(f"agentdistill.{package}.{name}"), [str(f) for f in files if f.exists()]


def survivors(names: list[str], say: Callable[[str], None]) -> tuple[list[str], int]:
    """The mutants of these modules that no test notices, and how many were made."""
    # A failure is enough; the smallest one is not wanted.
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile(
        "mutants", max_examples=25, deadline=None, database=None, derandomize=True, phases=phases
    )
    hypothesis.settings.load_profile("mutants")
    left, made = [], 0
    for module, files in chosen(names):
        # Imports in this process, once, what the forks need.
        if run(["--collect-only", *files]) != 0:
            raise SystemExit(f"the tests of {module.__name__} cannot be collected")
        mine = [m for m in mutants(module) if str(m) not in SAME]
        alive = [str(m) for m in mine if not caught(m, files)]
        made += len(mine)
        left += alive
        say(f"{module.__name__}: {len(mine) - len(alive)} of {len(mine)} caught")
        for mutant in alive:
            say(f"    survived: {mutant}")
    return left, made


if __name__ == "__main__":
    alive, total = survivors(sys.argv[1:], lambda line: print(line, flush=True))
    print(json.dumps({"made": total, "caught": total - len(alive)}))
    sys.exit(bool(alive))
