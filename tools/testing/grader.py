"""Grading code by unit tests, in two sandbox sessions that know nothing of each other.

The tests, with the values they expect, run in one session and the model's code in another. When a test calls the
candidate, the host carries the arguments over as data and the result back as data (`inside.py`): code that rewrites
builtins, exits, prints "passed" or returns objects that claim to equal everything does so where no verdict is made.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agentdistill.errors import UserError
from agentdistill.tools.sandbox.base import Limits, Result, Sandbox, SandboxError, Session, Status

_INSIDE = Path(__file__).with_name("inside.py").read_text(encoding="utf-8")
_BOOT = f"""
def _boot(source):
    space = {{"__name__": "_agentdistill"}}
    exec(compile(source, "<agentdistill>", "exec"), space)
    return space
_space = _boot({_INSIDE!r})
"""
_LONGEST_SOURCE = 64_000
_LONGEST_ANSWER = 60_000  # as `inside.LONGEST`
_TRIES = 3
_WORDS = {
    Status.TIMEOUT: "did not finish in time",
    Status.EXIT: "called sys.exit",
    Status.MEMORY: "ran out of memory",
    Status.CRASHED: "ended its process",
    Status.OUTPUT_LIMIT: "printed too much",
}


@dataclass(frozen=True, slots=True)
class Suite:
    """Unit tests.

    Attributes:
        source: Python source; it raises where a test fails. `_proxies[name]` is the candidate's function of that name,
            which is also a global, unless the source defines another.
        functions: names of the candidate's functions that the tests call.
    """

    source: str
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether every test passed, and if not, a sentence on the first that did not (it may hold expected values)."""

    passed: bool
    reason: str = ""


class Grader:
    """Grades solutions in a sandbox; may be shared by environments.

    Args:
        sandbox: where both sessions are opened.
        limits: of each session; the time limits are those of one call of a function.
        total_seconds: wall time of all of a candidate's calls together.
    """

    def __init__(self, sandbox: Sandbox, limits: Limits | None = None, total_seconds: float = 60.0) -> None:
        self.sandbox = sandbox
        self._idle: list[Session] = []  # tests' sessions between two gradings; a candidate's is never used again
        self.limits = replace(limits or Limits(), repr_chars=_LONGEST_ANSWER + 2)
        self.total_seconds = total_seconds

    def grade(self, source: str, suite: Suite, preamble: str = "") -> Verdict:
        """Run a suite on a solution.

        Args:
            preamble: source that is executed before the solution, in the same module.

        Raises:
            SandboxError: when the sandbox failed again and again; this says nothing of the solution.
            UserError: when the tests pass a value that cannot be carried over, such as a function.
        """
        return self.grade_each(source, [suite], preamble)[0]

    def grade_each(self, source: str, suites: list[Suite], preamble: str = "") -> list[Verdict]:
        """Run several suites on one solution, each from fresh tests; raises as `grade` does."""
        if len(source) > _LONGEST_SOURCE:
            return [Verdict(False, f"the solution is longer than {_LONGEST_SOURCE} characters")] * len(suites)
        problem: SandboxError | None = None
        for _ in range(_TRIES):
            try:
                return self._grade([preamble, source] if preamble else [source], suites)
            except SandboxError as error:
                problem = error
        raise SandboxError(f"grading failed {_TRIES} times: {problem}") from problem

    def _grade(self, sources: list[str], suites: list[Suite]) -> list[Verdict]:
        with ExitStack() as stack:
            candidate = stack.enter_context(closing(self._open("Candidate")))
            for source in sources:
                loaded = _run(candidate, f"_side.load({source!r})")
                if loaded.status is not Status.OK:
                    return [Verdict(False, f"loading the solution: {_why(loaded)}")] * len(suites)
            verdicts: list[Verdict] = []
            for suite in suites:
                if verdicts and verdicts[-1].reason.startswith(_DEAD):
                    verdicts.append(verdicts[-1])
                    continue
                verdicts.append(self._judge(candidate, suite))
            return verdicts

    def close(self) -> None:
        """End the sessions that are kept for later gradings."""
        while self._idle:
            self._idle.pop().close()

    def _open(self, side: str) -> Session:
        session = self.sandbox.open(self.limits)
        try:
            booted = _run(session, f"{_BOOT}_side = _space[{side!r}]()")
            if booted.status is not Status.OK:
                raise SandboxError(f"the grader did not start in the {self.sandbox.name} sandbox: {_why(booted)}")
        except BaseException:
            session.close()
            raise
        return session

    def _judge(self, candidate: Session, suite: Suite) -> Verdict:
        """Run a suite in a tests' session, which is used again if the suite came to its end."""
        try:
            tests = self._idle.pop()
        except IndexError:
            tests = self._open("Tests")
        ended = False
        try:
            verdict, ended = self._relay(candidate, tests, suite)
        finally:
            if ended:
                self._idle.append(tests)
            else:
                tests.close()
        return verdict

    def _relay(self, candidate: Session, tests: Session, suite: Suite) -> tuple[Verdict, bool]:
        """Carry calls from the tests to the candidate, and answers back; the verdict, and whether the tests ended."""
        until = time.monotonic() + self.total_seconds
        step = _run(tests, f"_side.start({suite.source!r}, {list(suite.functions)!r})")
        asked = False
        while True:
            if step.status is not Status.OK:
                # Values that come back can make tests slow or large; all else is no doing of the candidate's.
                if asked and step.status in (Status.TIMEOUT, Status.MEMORY, Status.OUTPUT_LIMIT):
                    return Verdict(False, f"the tests {_why(step)}"), False
                raise SandboxError(f"the tests' session failed: {_why(step)}")
            request = _unpack(step.value)
            if request is None:
                raise SandboxError("the tests' session answered what it never answers")
            if "call" not in request:
                if "unsupported" in request:
                    raise UserError(f"the tests give {suite.functions} {request['unsupported']}, which cannot be carried over")
                return Verdict(bool(request.get("passed")), str(request.get("failed", ""))), True
            answer = _run(candidate, f"_side.call({request['call']!r}, {request['arguments']!r})")
            if answer.status is not Status.OK:
                return Verdict(False, f"{_DEAD}: {request['call']} {_why(answer)}"), False
            if time.monotonic() > until:
                return Verdict(False, f"{_DEAD}: all calls together took longer than {self.total_seconds:g} s"), False
            message = _unpack(answer.value)
            asked = True
            step = _run(tests, f"_side.answer({json.dumps(message)!r})")


_DEAD = "the solution ended early"


def _run(session: Session, source: str) -> Result:
    result = session.run(source)
    if result.status is Status.SANDBOX_ERROR:
        raise SandboxError(result.error)
    return result


def _unpack(value: str | None) -> dict[str, Any] | None:
    """The message in a result's value; None where it holds none, as a candidate may answer anything."""
    if value is None or len(value) > _LONGEST_ANSWER + 2:
        return None
    try:
        message = json.loads(base64.b64decode(value[1:-1], validate=True))
    except (ValueError, binascii.Error, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _why(result: Result) -> str:
    last = result.stderr.strip().rpartition("\n")[2][:300]
    return _WORDS.get(result.status) or result.error or last or str(result.status)
