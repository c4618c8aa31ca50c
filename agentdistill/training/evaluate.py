"""Success on fixed tasks, and what a reader of it has to know."""

from __future__ import annotations

from collections.abc import Sequence

from agentdistill.config import SAME_EPISODES
from agentdistill.errors import UserError
from agentdistill.intervals import Rate, clustered
from agentdistill.policies.base import SamplingParams
from agentdistill.rollout import Rollout, Task
from agentdistill.seeds import derive
from agentdistill.trajectory import StopReason, Trajectory

BATCH = 64  # episodes in play at one time


def evaluate(
    rollout: Rollout, seeds: Sequence[int], params: SamplingParams, *, seed: int, label: str, samples: int = 1
) -> tuple[Rate, list[Trajectory]]:
    """Play every task `samples` times; an environment that fails counts as no success, and is in the trajectories.

    Raises:
        UserError: without a task or a sample, or with several samples at temperature 0, which would all be the same.
    """
    if not seeds or samples < 1:
        raise UserError(f"an evaluation needs 1 task and 1 sample at least, not {len(seeds)} tasks and {samples} samples")
    if samples > 1 and params.temperature == 0:
        raise UserError(SAME_EPISODES.format(samples=samples))
    tasks = [Task(s, derive(seed, "eval", s, k), group=i) for i, s in enumerate(seeds) for k in range(samples)]
    played: list[Trajectory] = []
    for start in range(0, len(tasks), BATCH):
        played += rollout.run(tasks[start : start + BATCH], params, f"eval-{label}-{start // BATCH:03d}")
    won = [t.success for t in played]
    return clustered([won[i : i + samples] for i in range(0, len(won), samples)]), played


def env_failures(trajectories: Sequence[Trajectory]) -> list[str]:
    """The errors of episodes whose environment failed."""
    return [t.error for t in trajectories if t.stop_reason == StopReason.ENV_ERROR]


def caveats(played: Sequence[Trajectory]) -> list[str]:
    """What a reader of the success rate has to know: episodes that no message of the model's decided. A sentence each.

    Raises:
        UserError: when that is every episode, so that a rate would say nothing of the model.
    """
    failed, overflown = env_failures(played), [t for t in played if t.stop_reason == StopReason.PROMPT_OVERFLOW and not t.turns]
    if len(failed) == len(played):
        raise UserError(f"the environment failed in every one of {len(played)} episodes, first with: {failed[0]}")
    if len(overflown) == len(played):
        raise UserError(
            f"the first observation of every one of {len(played)} episodes was longer than the context; raise max_context, or "
            "take a model with a longer one"
        )
    notes = []
    if failed:
        notes.append(
            f"note: the environment failed in {len(failed)} of {len(played)} episodes, which count as lost: {failed[0]}"
        )
    if overflown:
        notes.append(f"note: {len(overflown)} of {len(played)} episodes did not fit the context at their first observation")
    return notes
