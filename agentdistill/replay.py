"""Checked replay: the actions of stored episodes, carried out again in a fresh environment, and all it answers compared."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from agentdistill.environment import Answer, EnvironmentFault
from agentdistill.episode import Play
from agentdistill.errors import UserError
from agentdistill.imported import require_played
from agentdistill.pool import EnvPool, Workers
from agentdistill.trajectory import StopReason, Trajectory
from agentdistill.verbs import callable_as_verb
from agentdistill.view import opening

RESET = -1
"""The turn of a difference that shows before the first action."""
_BROKEN = textwrap.TextWrapper(
    120, drop_whitespace=False, expand_tabs=False, replace_whitespace=False, break_on_hyphens=False
)  # long lines of a difference, with every character
COMPARED = ("observation", "reward", "terminated", "truncated")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a replayed episode first goes another way.

    Attributes:
        trajectory, task_id, seed: which episode.
        turn: from 0, or `RESET`.
        what: `observation`, `reward`, `terminated`, `truncated`, `tool_calls`, `task_id`, `task_type`, `messages`, `success`,
            or `fault` where the environment failed.
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
        from agentdistill.report.text import visible  # here, so that playing does not load what draws figures

        where = "at reset" if self.turn == RESET else f"at turn {self.turn + 1}"
        head = f"{self.trajectory} (task {visible(self.task_id)}, seed {self.seed}) differs {where}, in its {self.what}:"
        old, new = _lines(visible(self.stored)), _lines(visible(self.replayed))  # a terminal obeys some characters
        if old == new:  # the same words: what differs is how their lines end, or a mark that stood there before
            old, new = ([repr(line) for line in text.splitlines(keepends=True)] for text in (self.stored, self.replayed))
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


class Replayer:
    """Carries out stored actions again, each episode from its seed, and compares every answer.

    Observations, rewards, flags, tool calls and success have to be equal to the bit; wall times are no part of an answer. An
    episode that its environment ended by failing is compared up to there. Environments are kept for what comes next of their
    kind, until this is closed.

    Args:
        workers: processes for the environments; None: this one.
        say: takes each difference as it is found.
    """

    def __init__(self, workers: Workers | None = None, say: Callable[[Difference], None] = lambda _: None) -> None:
        self._workers, self._say = workers, say
        self._pool: EnvPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the environments."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def replay(self, trajectories: Iterable[Trajectory]) -> Report:
        """What became of the episodes.

        Raises:
            UserError: when an environment cannot be made: it is not registered, or a part of it is missing here; and for
                imported conversations, which no environment answers for.
        """
        report = Report()
        for members in _alike(trajectories):
            require_played(members, "replayed: no environment answers for it")
            for difference in self._pool_for(members[0]).play(_episode(each) for each in members):
                if difference is not None:
                    report.differences.append(difference)
                    self._say(difference)
            report.episodes += len(members)
        return report

    def _pool_for(self, stored: Trajectory) -> EnvPool:
        pool = self._pool
        if pool is None or (pool.env_id, pool.options) != (stored.env_id, stored.env_options):
            self.close()
            pool = self._pool = EnvPool(stored.env_id, stored.env_options, workers=self._workers)
        return pool


def replay(
    trajectories: Iterable[Trajectory], *, workers: Workers | None = None, say: Callable[[Difference], None] = lambda _: None
) -> Report:
    """`Replayer.replay` with environments that are closed afterwards."""
    with Replayer(workers, say) as replayer:
        return replayer.replay(trajectories)


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
        found = unequal(
            ("task_id", stored.task_id or first.task_id, first.task_id),
            ("task_type", stored.task_type or first.task_type, first.task_type),
            ("messages", _shown(stored.messages or messages), _shown(messages)),
        )
        for said in stored.turns:
            if found is not None:
                break
            turn += 1
            answer: Answer = yield "step", (said.action,)
            pairs = [(name, getattr(said, name), getattr(answer, name)) for name in COMPARED]
            found = unequal(*pairs, ("tool_calls", said.tool_calls, answer.tool_calls or []))
            success = success if answer.success is None else answer.success
    except EnvironmentFault as fault:
        found = ("fault", stored.error or "none", fault)
    if found is None and stored.stop_reason is not StopReason.ENV_ERROR:
        found = unequal(("success", stored.success, bool(success)))
    if found is None:
        return None
    what, old, new = found
    return Difference(stored.id, stored.task_id, stored.seed, turn, what, as_text(old), as_text(new))


def as_text(value: Any) -> str:
    """A value for a `Difference`; tool calls are a line each."""
    if not isinstance(value, list):
        return str(value)
    return "\n".join(f"{call.name}({call.arguments}) -> {'' if call.ok else 'refused: '}{call.result}" for call in value)


def _lines(text: str) -> list[str]:
    """Lines of a text, long ones broken."""
    return [part for line in text.splitlines() for part in _BROKEN.wrap(line) or [line]] or [""]


def unequal(*pairs: tuple[str, Any, Any]) -> tuple[str, Any, Any] | None:
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
