"""The two sessions of a grading."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agentdistill.errors import UserError
from agentdistill.tools.sandbox import shared
from agentdistill.tools.sandbox.base import Limits, SandboxError
from agentdistill.tools.testing.grader import Grader, Suite
from tests.needs import missing

LIMITS = Limits(cpu_seconds=1.0, wall_seconds=4.0)


@pytest.fixture(scope="module")
def sandbox() -> Any:
    try:
        return shared("auto")
    except UserError as error:
        return missing(str(error))


@pytest.fixture
def grader(sandbox: Any) -> Iterator[Grader]:
    made = Grader(sandbox, LIMITS, total_seconds=3.0)
    yield made
    made.close()


def suite(source: str) -> Suite:
    return Suite(source, ("f", "g"))


def test_the_reason_names_the_failed_assertion_and_what_was_got(grader: Grader) -> None:
    verdict = grader.grade("def f(x): return x + 2", suite("value = f(1)\nassert value == 2, f'got {value}'"))
    assert (verdict.passed, verdict.reason) == (False, "AssertionError: got 3")


def test_several_functions_and_keywords_reach_the_solution(grader: Grader) -> None:
    code = "def f(x, *, scale=1): return x * scale\ndef g(x): return f(x, scale=10)"
    assert grader.grade(code, suite("assert f(2, scale=3) == 6 and g(f(1)) == 10")).passed


def test_a_preamble_is_executed_before_the_solution_in_its_module(grader: Grader) -> None:
    code = "from __future__ import annotations\ndef f(x: Unknown) -> None: return g(x) + n"
    verdict = grader.grade(code, suite("assert f(1) == 12"), "n = 10\ndef g(x): return x + 1")
    assert verdict.passed, verdict.reason
    assert "ZeroDivisionError" in grader.grade(code, suite(""), "1 / 0").reason


def test_the_solution_keeps_its_state_between_calls(grader: Grader) -> None:
    code = "n = 0\ndef f():\n    global n\n    n += 1\n    return n"
    assert grader.grade(code, suite("assert [f(), f(), f()] == [1, 2, 3]")).passed


def test_tests_can_expect_exceptions(grader: Grader) -> None:
    tests = suite("try:\n    f(0)\nexcept ZeroDivisionError:\n    pass\nelse:\n    raise AssertionError")
    assert grader.grade("def f(x): return 1 / x", tests).passed
    assert not grader.grade("def f(x): return 1", tests).passed


def test_a_missing_function_is_named(grader: Grader) -> None:
    assert "defines no f" in grader.grade("def h(): pass", suite("f()")).reason


def test_what_goes_wrong_on_loading_is_told(grader: Grader) -> None:
    assert "ZeroDivisionError" in grader.grade("1 / 0", suite("f()")).reason
    assert "sys.exit" in grader.grade("raise SystemExit", suite("f()")).reason


def test_many_short_calls_are_ended_by_the_time_for_all(grader: Grader) -> None:
    verdict = grader.grade("import time\ndef f(): time.sleep(0.3)", suite("for _ in range(1000): f()"))
    assert "together" in verdict.reason


def test_tests_that_hang_on_a_value_count_as_failed(grader: Grader) -> None:
    verdict = grader.grade("def f(): return 7", suite("while f() == 7: pass\nassert False"))
    assert not verdict.passed
    assert not grader.grade("def f(): return 1 << 200_000", suite("while f(): x = 3 ** f()")).passed


def test_a_function_as_argument_is_a_mistake_of_the_tests(grader: Grader) -> None:
    with pytest.raises(UserError, match="a function"):
        grader.grade("def f(x): return 1", suite("f(lambda: 1)"))


def test_a_verdict_does_not_depend_on_the_gradings_before(grader: Grader) -> None:
    draws = suite("import random\nassert f(random.random()) == 0")
    reasons = {grader.grade("def f(x): raise ValueError(x)", draws).reason for _ in range(3)}
    assert len(reasons) == 1


def test_the_solution_finds_no_trace_of_the_tests(grader: Grader) -> None:
    code = """
import gc, sys
def f():
    needle = ''.join(['needle', '-47', '11'])
    texts = [o for o in gc.get_objects() if isinstance(o, (dict, list, tuple)) and needle in map(str, list(o))]
    seen = [n for n, frame in sys._current_frames().items() if needle in str(frame.f_globals)]
    return len(texts) + len(seen)
"""
    assert grader.grade(code, suite("secret = 'needle-4711'\nassert f() == 0")).passed


class Failing:
    """A real sandbox, but that the first sessions asked of it fail."""

    name = "failing"

    def __init__(self, real: Any, failures: int) -> None:
        self.real, self.left = real, failures

    def open(self, limits: Limits | None = None) -> Any:
        self.left -= 1
        if self.left >= 0:
            raise SandboxError("no session")
        return self.real.open(limits)


def test_a_failing_sandbox_is_tried_again_and_then_told_as_such(sandbox: Any) -> None:
    assert Grader(Failing(sandbox, 2), LIMITS).grade("def f(): return 1", suite("assert f() == 1")).passed  # type: ignore[arg-type]
    with pytest.raises(SandboxError, match="no session"):
        Grader(Failing(sandbox, 3), LIMITS).grade("def f(): return 1", suite("assert f() == 1"))  # type: ignore[arg-type]
