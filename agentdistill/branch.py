"""Counterfactual branches: a stored episode is carried out again up to a turn, and another policy plays on from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agentdistill.errors import UserError
from agentdistill.imported import require_played
from agentdistill.policies.base import SamplingParams
from agentdistill.replay import COMPARED, Difference, as_text, unequal
from agentdistill.rollout import Rollout, Task
from agentdistill.seeds import derive
from agentdistill.trajectory import StopReason, Trajectory
from agentdistill.verbs import callable_as_verb

BATCH = 64  # episodes in play at one time


@dataclass(slots=True)
class Branches:
    """What became of some episodes.

    Attributes:
        trajectories: the branches, each with its `parent` and as many `prefix_turns` as were carried out again.
        differences: of the episodes that did not repeat themselves up to the turn; they have no branch.
        ended: how many were over by then, so that there was nothing left to decide.
    """

    trajectories: list[Trajectory] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    ended: int = 0

    def kept(self, parents: Sequence[Trajectory]) -> list[Trajectory]:
        """The parents of the branches, in their order."""
        by_id = {each.id: each for each in parents}
        return [by_id[each.parent] for each in self.trajectories]


def branch(
    rollout: Rollout, parents: Sequence[Trajectory], turn: int, params: SamplingParams, *, seed: int = 0, label: str = "branch"
) -> Branches:
    """Play each episode's first `turn` messages again, as their tokens were sampled, and let `rollout`'s policy go on.

    What the environment answers up to there has to be what is stored. Messages whose tokens mean another text to the policy's
    tokenizer are encoded anew for it. None of the replayed messages carries loss.

    Args:
        rollout: of the same environment and options as the parents.
        turn: messages that are kept, 0 or more; 0 lets the policy play the whole task.
        seed: of the policy's sampling.
        label: ids of the branches begin with it.

    Raises:
        UserError: for a turn below 0, or parents of another environment, or imported ones.
    """
    if turn < 0:
        raise UserError(f"turn is {turn}; it is the number of messages to keep, 0 or more")
    require_played(parents, "branched from: no environment answers for it")
    pool, out = rollout.pool, Branches()
    for parent in parents:
        if (parent.env_id, parent.env_options) != (pool.env_id, pool.options):
            raise UserError(
                f"trajectory '{parent.id}' was played in {parent.env_id} with options {parent.env_options}, and is to go on in "
                f"{pool.env_id} with {pool.options}; branch from one environment at a time"
            )
    live = [p for p in parents if len(p.turns) > turn]
    out.ended = len(parents) - len(live)
    for start in range(0, len(live), BATCH):
        chosen = live[start : start + BATCH]
        tasks = [Task(p.seed, derive(seed, "branch", p.id), group=p.group, prefix=tuple(p.turns[:turn])) for p in chosen]
        played = rollout.run(tasks, params, f"{label}-{start // BATCH:03d}")
        for parent, child in zip(chosen, played, strict=True):
            difference = _difference(parent, child, turn)
            if difference is None:
                child.parent = parent.id
                out.trajectories.append(child)
            else:
                out.differences.append(difference)
    return out


def _difference(parent: Trajectory, child: Trajectory, turn: int) -> Difference | None:
    """Where the child, in the turns that it was to repeat, first went another way."""
    for k, old in enumerate(parent.turns[:turn]):
        found: tuple[str, object, object] | None
        if k < len(child.turns):
            new = child.turns[k]
            found = unequal(*((name, getattr(old, name), getattr(new, name)) for name in (*COMPARED, "tool_calls")))
        elif child.stop_reason is StopReason.ENV_ERROR:
            found = ("fault", "none", child.error)
        else:
            found = ("context", "room for its messages", f"none for the policy's tokenizer ({child.stop_reason})")
        if found is not None:
            return Difference(parent.id, parent.task_id, parent.seed, k, found[0], as_text(found[1]), as_text(found[2]))
    return None


callable_as_verb(__name__)
