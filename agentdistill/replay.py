"""Checked replay: the actions of stored episodes, carried out again in a fresh environment, and all it answers compared."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentdistill.environment import Answer, EnvironmentFault
from agentdistill.errors import UserError
from agentdistill.pool import EnvPool, Play, Workers
from agentdistill.trajectory import StopReason, Trajectory
from agentdistill.verbs import callable_as_verb
from agentdistill.view import opening

RESET = -1
"""The turn of a difference that shows before the first action."""
_COMPARED = ("observation", "reward", "terminated", "truncated")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a replayed episode first goes another way.

    Attributes:
        trajectory, task_id, seed: which episode.
        turn: from 0, or `RESET`.
        what: `observation`, `reward`, `terminated`, `truncated`, `tool_calls`, `task_id`, `messages`, `success`, or `fault`
            where the environment failed.
        stored, replayed: the two values, as text.
    """

    trajectory: str
    task_id: str
    seed: int
    turn: int
    what: str
    stored: str
    replayed: str

    def __str__(self) -> str:
        where = "at reset" if self.turn == RESET else f"at turn {self.turn + 1}"
        head = f"{self.trajectory} (task {self.task_id}, seed {self.seed}) differs {where}, in its {self.what}:"
        old, new = (text.splitlines() or [""] for text in (self.stored, self.replayed))
        return "\n".join([head, *difflib.unified_diff(old, new, "stored", "replayed", lineterm="")])


@dataclass(slots=True)
class Report:
    """What a replay found.

    Attributes:
        episodes: how many were replayed.
        differences: the first difference of each that went another way.
        problems: a sentence for each part of the store that could not be read, or is not as it was written.
    """

    episodes: int = 0
    differences: list[Difference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether everything was there and every episode repeated itself."""
        return not self.differences and not self.problems


def replay(
    trajectories: Iterable[Trajectory], *, workers: Workers | None = None, say: Callable[[Difference], None] = lambda _: None
) -> Report:
    """Carry out stored actions again, each episode from its seed, and compare every answer.

    Observations, rewards, flags, tool calls and success have to be equal to the bit; wall times are no part of an answer. An
    episode that its environment ended by failing is compared up to there.

    Args:
        workers: processes for the environments; None: this one.
        say: takes each difference as it is found.

    Raises:
        UserError: when an environment cannot be made: it is not registered, or a part of it is missing here.
    """
    report = Report()
    for members in _alike(trajectories):
        pool = EnvPool(members[0].env_id, members[0].env_options, workers=workers)
        try:
            found = pool.play(_episode(each) for each in members)
        finally:
            pool.close()
        report.episodes += len(members)
        for difference in found:
            if difference is not None:
                report.differences.append(difference)
                say(difference)
    return report


def _alike(trajectories: Iterable[Trajectory]) -> Iterable[Sequence[Trajectory]]:
    """Neighbours that were played in environments of one kind."""
    members: list[Trajectory] = []
    for each in trajectories:
        if members and (each.env_id, each.env_options) != (members[0].env_id, members[0].env_options):
            yield members
            members = []
        members.append(each)
    if members:
        yield members


def _episode(stored: Trajectory) -> Play[Difference | None]:
    """Play an episode's actions; the first difference ends it."""
    turn, success = RESET, None
    try:
        first = yield "reset", (stored.seed,)
        messages = opening((yield "system_prompt", ()), first.observation)
        unequal = _unequal(
            ("task_id", stored.task_id or first.task_id, first.task_id),
            ("messages", _shown(stored.messages or messages), _shown(messages)),
        )
        for said in stored.turns:
            if unequal is not None:
                break
            turn += 1
            answer: Answer = yield "step", (said.action,)
            pairs = [(name, getattr(said, name), getattr(answer, name)) for name in _COMPARED]
            unequal = _unequal(*pairs, ("tool_calls", said.tool_calls, answer.tool_calls or []))
            success = success if answer.success is None else answer.success
    except EnvironmentFault as fault:
        unequal = ("fault", stored.error or "none", fault)
    if unequal is None and stored.stop_reason is not StopReason.ENV_ERROR:
        unequal = _unequal(("success", stored.success, bool(success)))
    if unequal is None:
        return None
    what, old, new = unequal
    return Difference(stored.id, stored.task_id, stored.seed, turn, what, str(old), str(new))


def _unequal(*pairs: tuple[str, Any, Any]) -> tuple[str, Any, Any] | None:
    """The first of (name, stored, replayed) whose values differ."""
    return next((pair for pair in pairs if pair[1] != pair[2]), None)


def _shown(messages: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def require_exact(report: Report) -> None:
    """Raise what a command ends with where a replay found something.

    Raises:
        UserError: with counts.
    """
    if not report.exact:
        said = (
            [f"{len(report.differences)} of {report.episodes} episodes do not repeat themselves"] if report.differences else []
        )
        said += report.problems
        raise UserError("; ".join(said))


callable_as_verb(__name__)
