"""Grading of mathematical answers: what can be compared at once is; the rest goes to math-verify in a killable worker."""

from __future__ import annotations

import functools
import importlib.util
import re
from fractions import Fraction

from agentdistill.errors import UserError
from agentdistill.graders import relations, units
from agentdistill.graders.latex import bare, listed, said, squeezed, tidy, value, without_remarks, words
from agentdistill.graders.readable import is_formula
from agentdistill.worker import Worker, WorkerError

# CPU time decides, so that a verdict does not depend on what else the machine does; wall time is the last resort.
CPU_SECONDS, WALL_SECONDS = 5.0, 30.0
_LONGEST = 1_000  # characters of an answer; a reference is never near it
_CLOSE, _FLOAT = Fraction(1, 10**6), Fraction(1, 10**12)
_PARTS = 4  # of `a = b = c`


def math(answer: str, expected: object) -> bool:
    r"""Whether an answer has the expected value, however it is written.

    Numbers are compared exactly but for rounding, with percentages (`50%` is 50 and 0.5), mixed numbers and powers of ten
    besides; words without regard to case; formulae, tuples, intervals, sets, matrices and equations by math-verify, which
    gets at most `CPU_SECONDS` (and `WALL_SECONDS`) in a process of its own. A unit (one of `graders.units`, after the value)
    may be left out or added, but not be another one; `m + n = 5` and `2 + 3 = 5` are 5. What takes longer, or has anything
    else in it that is not of the value, is wrong.

    Args:
        answer: a final answer, or a message with one (`\boxed{…}`, `<answer>…</answer>`, "the answer is …").
        expected: the reference answer.

    Raises:
        UserError: when the expected answer is empty, or a formula has to be compared and math-verify is missing.
    """
    right = tidy(str(expected))
    if not right:
        raise UserError("the expected answer is empty; mend the task")
    if len(answer) > _LONGEST * 100:
        return False
    given = said(answer)
    if not given or len(given) > _LONGEST:
        return False
    return _same(without_remarks(tidy(given), right), right)


def _same(given: str, right: str) -> bool:
    """The verdict on tidied answers."""
    if squeezed(given) == squeezed(right):
        return True
    if ("=" in given) and ("=" in right):
        return _told_apart(given, right)
    right = bare(right)
    if not re.search(r"[<>]|\\[lgn]e(?![a-z])", right) and (bounds := relations.interval(given)) is not None:
        given = bounds
    given = listed(given)
    *before, last = bare(given).split("=")
    shown = [part for part in before if not relations.is_label(part)]
    if len(shown) > _PARTS or not last.strip():
        return False
    return _same_value(last.strip(), listed(right)) and all(_same_value(part.strip(), last.strip()) for part in shown)


def _same_value(given: str, right: str) -> bool:
    """The verdict on answers without an `=`."""
    wanted, told = words(right), words(given)
    if wanted is not None and (told is not None or len(wanted) > 1):
        same = told is not None and told.lower() == wanted.lower()
        return told == wanted or (same and len(wanted) > 1)  # m and M are two symbols
    right, unit = units.split(right, letters=False)
    expected = value(right)
    given, other = units.split(given, letters=expected is not None)
    if unit and other and unit != other:
        return False
    if squeezed(given) == squeezed(right):
        return True
    found = value(given)
    if expected is None or found is None:
        return _told_apart(given, right)
    percent = [text.endswith("%") for text in (given, right)]
    return (
        _equal(found, expected)
        or (percent == [True, False] and _equal(found / 100, expected))
        or (percent == [False, True] and _equal(found, expected / 100))
    )


def _told_apart(given: str, right: str) -> bool:
    """The verdict of algebra, where there is something to compare."""
    if not is_formula(given, right) or not re.search(r"[\dA-Za-z]", given):
        return False
    worker = _worker()
    try:
        return bool(worker.call(given, right))
    except WorkerError:
        _prove(worker)
        return False


def _equal(a: Fraction, b: Fraction) -> bool:
    """Exactly, where both are whole; to 1e-12, where one is; else to 1e-6, because a decimal may stand for a fraction."""
    if a.denominator == b.denominator == 1:
        return a == b
    margin = _FLOAT if 1 in (a.denominator, b.denominator) else _CLOSE
    return abs(a - b) <= max(abs(a), abs(b)) * margin + (Fraction(1, 10**12) if b == 0 else 0)


@functools.cache
def _worker() -> Worker:
    if importlib.util.find_spec("math_verify") is None:
        raise UserError("formulae are compared by math-verify, which is not installed; pip install 'agentdistill[math]'")
    worker = Worker("agentdistill.graders.symbolic:equal", WALL_SECONDS, cpu=CPU_SECONDS)
    _prove(worker)
    return worker


def _prove(worker: Worker) -> None:
    """See that the worker works: our own failure must not look like a wrong answer."""
    try:
        worker.call("x", "x")
    except WorkerError as error:
        raise UserError(f"formulae cannot be compared, because math-verify does not run here: {error}") from error
