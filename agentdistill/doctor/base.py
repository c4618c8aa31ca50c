"""What a check of the doctor is: a named function that looks at one thing and says what it found, in one sentence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from agentdistill.errors import UserError
from agentdistill.faults import described, one_line

if TYPE_CHECKING:
    from agentdistill.doctor.patient import Patient

Outcome = Literal["ok", "warn", "fail", "skipped"]
Cost = Literal["cheap", "model"]
"""`cheap`: well under a second, nothing is loaded. `model`: environments, tokenizers or weights are."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's outcome, and a sentence: what is so, what is wrong and what to do, or why it was skipped."""

    outcome: Outcome
    detail: str


def ok(detail: str) -> Finding:
    """All is well."""
    return Finding("ok", detail)


def warn(detail: str) -> Finding:
    """Something the user should know; a run works, or may."""
    return Finding("warn", detail)


def fail(detail: str) -> Finding:
    """A run would not start, or would give wrong numbers."""
    return Finding("fail", detail)


def skipped(reason: str) -> Finding:
    """There is nothing to look at."""
    return Finding("skipped", reason)


@dataclass(frozen=True, slots=True)
class Check:
    """A registered check.

    Attributes:
        name: as it stands in the table.
        cost: see `Cost`.
        examine: looks; a `UserError` that it raises is a failure with that sentence.
        after: checks without which it means nothing: it is skipped where one of them failed.
        at_start: whether `train` runs it before anything else; for cheap ones that `train` does not make by itself.
        alone: whether it has something to say without an experiment.
    """

    name: str
    cost: Cost
    examine: Callable[[Patient], Finding]
    after: tuple[str, ...] = ()
    at_start: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """One row of a diagnosis; `seconds` is how long it took."""

    name: str
    cost: Cost
    outcome: Outcome
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What every check found, in order."""

    results: tuple[Result, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def failed(self) -> list[Result]:
        """The failures."""
        return [each for each in self.results if each.outcome == "fail"]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `healthy`, and the checks in order."""
        return {"healthy": self.healthy, "checks": [asdict(each) for each in self.results]}

    def __getitem__(self, name: str) -> Result:
        return next(each for each in self.results if each.name == name)


CHECKS: dict[str, Check] = {}
"""Every check by name, in the order in which they run."""


def check(
    name: str, cost: Cost, *, after: Sequence[str] = (), at_start: bool = False, alone: bool = False
) -> Callable[[Callable[[Patient], Finding]], Callable[[Patient], Finding]]:
    """Register a check; see `Check` for the arguments.

    Raises:
        ValueError: for a name that is taken, or one in `after` that is not known yet.
    """

    def add(examine: Callable[[Patient], Finding]) -> Callable[[Patient], Finding]:
        if name in CHECKS or not CHECKS.keys() >= set(after):
            raise ValueError(f"check '{name}' is registered twice, or before one of {list(after)}")
        CHECKS[name] = Check(name, cost, examine, tuple(after), at_start, alone)
        return examine

    return add


def run_checks(patient: Patient, checks: Iterable[Check], tell: Callable[[Result], None] = lambda _: None) -> Diagnosis:
    """Make the checks in order. One that breaks is a failure of its own, and the others are made all the same.

    Args:
        tell: called with each result as it comes.
    """
    results: list[Result] = []
    lacking: dict[str, str] = {}  # what failed, or was skipped for something that did
    for each in checks:
        began = time.perf_counter()
        cause = next((lacking[name] for name in each.after if name in lacking), "")
        if cause:
            found = skipped(f"'{cause}' failed")
        elif patient.config is None and not each.alone:
            found = skipped("no experiment is named")
        else:
            found = _examined(each, patient)
        if cause or found.outcome == "fail":
            lacking[each.name] = cause or each.name
        result = Result(each.name, each.cost, found.outcome, found.detail, round(time.perf_counter() - began, 3))
        results.append(result)
        tell(result)
    return Diagnosis(tuple(results))


def _examined(each: Check, patient: Patient) -> Finding:
    try:
        return each.examine(patient)
    except UserError as error:
        return fail(str(error))
    except Exception as error:
        return fail(f"the check broke: {one_line(described(error), 300)}")
