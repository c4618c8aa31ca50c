"""Several teachers, of which one scores each trajectory, and the rules that say which (G-OPD, arXiv 2602.12125)."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from agentdistill.errors import UserError, nearest
from agentdistill.policies.base import Distribution, ScoreRequest, TeacherScorer, TeacherScores
from agentdistill.signals.registry import Choice, Registry
from agentdistill.trajectory import Trajectory

ASSIGNMENTS: Registry[str] = Registry("assign", "agentdistill.training.panel")
"""Called with a trajectory, the teachers' names in the experiment's order, and every training task's place in its split by
seed; the name of the teacher that scores it. What it says may depend on nothing else, or a resumed run would differ."""


@ASSIGNMENTS.register("round-robin")
def round_robin(trajectory: Trajectory, names: Sequence[str], places: Mapping[int, int]) -> str:
    """The first task of the training split to the first teacher, the second to the second, and so on around.

    A task has one teacher for all its rollouts, in every iteration.
    """
    return names[places.get(trajectory.seed, trajectory.seed) % len(names)]


def _check_rules(*, rules: dict[str, str]) -> None:
    if "*" not in rules:
        raise ValueError("rules has no pattern '*' for tasks that none of the others fits; add it as the last")
    if list(rules)[-1] != "*":
        raise ValueError("rules are tried in order, and '*' fits every task, so what stands behind it would never be tried")


@ASSIGNMENTS.register("task", check=_check_rules)
def by_task(trajectory: Trajectory, names: Sequence[str], places: Mapping[int, int], *, rules: dict[str, str]) -> str:
    """The teacher of the first pattern that the task's id fits.

    Args:
        rules: teachers by shell pattern over `Trajectory.task_id`, such as `boil/*`; the last is `*`.
    """
    return _first(trajectory.task_id, rules)


@ASSIGNMENTS.register("task-type", check=_check_rules)
def by_type(trajectory: Trajectory, names: Sequence[str], places: Mapping[int, int], *, rules: dict[str, str]) -> str:
    """The teacher of the first pattern that the task's type fits.

    Args:
        rules: as for `task`, over `Trajectory.task_type`.

    Raises:
        UserError: where the environment tells no type.
    """
    if not trajectory.task_type:
        raise UserError(
            f"assign 'task-type' goes by the type of a task, and '{trajectory.env_id}' tells none for task "
            f"'{trajectory.task_id}'; take assign 'task', which goes by its id, or let reset give info['task_type']"
        )
    return _first(trajectory.task_type, rules)


def _first(word: str, rules: Mapping[str, str]) -> str:
    return next(name for pattern, name in rules.items() if fnmatch.fnmatchcase(word, pattern))


def check_assignment(choice: Choice[str], names: Sequence[str]) -> None:
    """Refuse rules that name no teacher of the experiment, or leave one without a task.

    Raises:
        UserError: naming both.
    """
    if "rules" not in choice.params:
        return
    named = list(choice.params["rules"].values())
    for name in named:
        if name not in names:
            near = nearest(name, names)
            raise UserError(f"assign '{choice.name}' gives tasks to teacher '{name}', which is not among teachers{near}")
    for name in names:
        if name not in named:
            raise UserError(
                f"teachers has '{name}', and no rule of assign '{choice.name}' gives it a task; add one, or drop it"
            )


@dataclass(frozen=True, slots=True)
class Narrow:
    """A distribution on the first `width` ids, renormalised: heads of one family are padded to different widths."""

    inner: Distribution
    width: int

    def logprobs(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """`[len(rows), width]` (see `Distribution`)."""
        return torch.log_softmax(self.inner.logprobs(rows)[:, : self.width], dim=-1)


@dataclass(frozen=True, slots=True)
class Seat:
    """A teacher, and whether it sees the environment's plan."""

    scorer: TeacherScorer
    privileged: bool = True


@dataclass(frozen=True, slots=True)
class Panel:
    """Every teacher of a run, by the name that the experiment gives it.

    Attributes:
        assign: the name of the teacher of a trajectory.
        width: ids that all of them know, where their output heads differ; the wider ones are cut to it, so that what a token
            adds to the loss does not depend on which teachers share its micro-batch.
        asked: the names of those that scored anything so far.
    """

    seats: Mapping[str, Seat]
    assign: Callable[[Trajectory], str] = field(default=lambda _: "")
    width: int | None = None
    asked: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, scorer: TeacherScorer) -> Panel:
        """A panel of one, who sees the plan wherever one was shown."""
        return cls({"": Seat(scorer)})

    @property
    def name(self) -> str:
        """Who sits in it, for messages."""
        return " and ".join(seat.scorer.name for seat in self.seats.values())

    @property
    def capabilities(self) -> frozenset[str]:
        """What every one of them gives."""
        return frozenset.intersection(*(frozenset(seat.scorer.capabilities) for seat in self.seats.values()))

    def score(self, owners: Sequence[str], own: Sequence[ScoreRequest], plain: Sequence[ScoreRequest]) -> list[TeacherScores]:
        """One answer a sequence, by the teacher that owns it.

        Args:
            owners: names, one a sequence.
            own: the sequences behind the prompts with the plan, where there is one.
            plain: the same as the student saw them.
        """
        answers: dict[int, TeacherScores] = {}
        for name, seat in self.seats.items():
            mine = [i for i, owner in enumerate(owners) if owner == name]
            if mine:
                self.asked.add(name)
                given = seat.scorer.score([(own if seat.privileged else plain)[i] for i in mine])
                answers |= {i: self._cut(answer) for i, answer in zip(mine, given, strict=True)}
        return [answers[i] for i in range(len(owners))]

    def _cut(self, scores: TeacherScores) -> TeacherScores:
        if self.width is None or scores.distribution is None:
            return scores
        return TeacherScores(scores.logprobs, scores.entropy, Narrow(scores.distribution, self.width))
