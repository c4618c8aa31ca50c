"""What follows from stored scores: SOD weights, advantages as the run's method gives them, and provenance, a value a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from agentdistill.curricula.sod import sod
from agentdistill.errors import UserError
from agentdistill.signals import Method, TokenTable
from agentdistill.signals.provenance import provenance
from agentdistill.store_table import stored_table
from agentdistill.trajectory import FloatArray, StopReason, Trajectory
from agentdistill.viewer.source import reference_of, teacher_of

STUDENT = "logprob"
_PAIRS = 12  # ordered pairs of scorers for which provenance is worked out


@dataclass(slots=True)
class Derived:
    """Of one trajectory, arrays of one value a student token in stream order; None or absent where it cannot be said.

    Attributes:
        sod: SOD step weights by scorer.
        weight: the run's own step weight times its gate.
        advantage: the run's own advantage.
        provenance: `Provenance` by (teacher, student before) among the scorers; the stored student is the distilled one.
    """

    sod: dict[str, FloatArray] = field(default_factory=dict)
    weight: FloatArray | None = None
    advantage: FloatArray | None = None
    provenance: dict[tuple[str, str], FloatArray] = field(default_factory=dict)


def derive(
    trajectories: Sequence[Trajectory], method: Method | None, iteration: int | None, note: Callable[[str], None]
) -> list[Derived]:
    """What follows for each trajectory of a batch.

    Args:
        method: the run's; None gives neither weights nor advantages.
        iteration: of a batch that was trained on, from 1; None for one that was not, which has no advantages.
        note: takes a sentence about what cannot be shown.
    """
    out = [Derived() for _ in trajectories]
    usable = [i for i, item in enumerate(trajectories) if _complete(item)]
    settings = method.step_weight.params if method is not None and method.step_weight.name == "sod" else {}
    for scorer in scorers_of(trajectories):
        members = [i for i in usable if _scored(trajectories[i], scorer)]
        table = stored_table([trajectories[i] for i in members], {"teacher": scorer})
        for i, values in zip(members, _split(table, sod(table, **settings)), strict=True):
            out[i].sod[scorer] = values
    pairs = list(permutations(scorers_of(trajectories), 2))
    if len(pairs) > _PAIRS:
        note(f"Provenance is worked out for the first {_PAIRS} of {len(pairs)} pairs of scorers.")
    for teacher, before in pairs[:_PAIRS]:
        members = [i for i in usable if _scored(trajectories[i], teacher) and _scored(trajectories[i], before)]
        table = stored_table([trajectories[i] for i in members], {"teacher": teacher, "student": before})
        classes = table.spread_steps(provenance(table, distilled=STUDENT)) if members else np.empty(0)
        for i, values in zip(members, _split(table, classes), strict=True):
            out[i].provenance[teacher, before] = values
    if method is not None and iteration is not None:
        trained = [i for i in usable if trajectories[i].stop_reason != StopReason.ENV_ERROR]
        _streams(trajectories, trained, method, iteration, out, note)
    return out


def _streams(
    trajectories: Sequence[Trajectory], members: list[int], method: Method, iteration: int, out: list[Derived],
    note: Callable[[str], None],
) -> None:  # fmt: skip
    """Weights and advantages of a batch as its update used them, as far as they follow from what is stored."""
    first = next((trajectories[i] for i in members), None)
    names = {"teacher": teacher_of(first), "reference": reference_of(first)} if first is not None else {}
    scorers = {column: name for column, name in names.items() if name is not None}
    members = [i for i in members if all(_scored(trajectories[i], name) for name in scorers.values())]
    table = stored_table([trajectories[i] for i in members], scorers)
    if not members:
        return
    try:
        streams = method.apply(table, iteration)
    except UserError as error:
        note(f"Advantages and the run's own weights cannot be worked out from the store: {error}.")
        return
    weights, advantages = _split(table, streams.step_weight * streams.gate), _split(table, streams.advantage)
    for i, weight, advantage in zip(members, weights, advantages, strict=True):
        out[i].weight = weight
        if method.signal.name != "none" or method.rewarded:  # else the whole update is a divergence's own gradient
            out[i].advantage = advantage


def _split(table: TokenTable, column: FloatArray) -> list[FloatArray]:
    """A column's values on student tokens, by trajectory."""
    if not len(table):
        return []
    ends = np.cumsum(np.bincount(table.trajectory[table.is_action], minlength=table.n_trajectories))
    return np.split(column[table.is_action], ends[:-1])


def _complete(item: Trajectory) -> bool:
    """Whether each student token has the student's own log-prob."""
    said = [turn for turn in item.turns if turn.author == "student" and turn.action_ids]
    whole = all(len(turn.logprobs) == len(turn.logprobs_t1) == len(turn.action_ids) for turn in said)
    return bool(said) and whole and all(np.isfinite(turn.logprobs_t1).all() for turn in said)


def _scored(item: Trajectory, scorer: str) -> bool:
    """Whether each student token has this scorer's log-prob."""
    scores = item.scores.get(scorer)
    return scores is not None and len(scores.logprobs) == item.n_action_tokens and bool(np.isfinite(scores.logprobs).all())


def scorers_of(trajectories: Sequence[Trajectory]) -> list[str]:
    """Names of the scorers of any of them, in the order they are met."""
    return list(dict.fromkeys(name for item in trajectories for name in item.scores))
