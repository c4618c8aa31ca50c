"""Group-relative advantages from episode rewards: each episode is compared with the others of its task.

Sources: GRPO (arXiv 2402.03300) in the form SOD uses; Dr. GRPO (arXiv 2503.20783); RLOO (arXiv 2402.14740).
Equal rewards and groups of one give exactly 0 in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

from agentdistill.signals.registry import RL_TERMS
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray, IntArray


@RL_TERMS.register("none")
def no_rl(table: TokenTable) -> FloatArray:
    """No reward term: `[n]` zeros."""
    return np.zeros(len(table))


@RL_TERMS.register("grpo", needs={"rewards"})
def grpo(table: TokenTable, *, eps: Annotated[float, Field(gt=0)] = 1e-6) -> FloatArray:
    """`[n]`: `(R − mean) / (std + eps)` within the trajectory's group, on every student token; 0 elsewhere.

    The standard deviation is the unbiased one, as in SOD (GRPO: arXiv 2402.03300).

    Args:
        table: needs `reward` and `group`.
        eps: added to the standard deviation.

    Raises:
        UserError: when `reward` or `group` is missing, not finite, or differs within a trajectory.
    """
    return _compared(table, lambda reward: (reward - reward.mean()) / (reward.std(ddof=1) + eps))


@RL_TERMS.register("dr-grpo", needs={"rewards"})
def dr_grpo(table: TokenTable) -> FloatArray:
    """`[n]`: `R − mean` within the group, on every student token; 0 elsewhere.

    Without the standard deviation, tasks that are almost always or almost never solved do not count for more (arXiv
    2503.20783). The paper also sums tokens instead of averaging them: `aggregation: seq-mean-token-sum-norm`.

    Raises:
        UserError: as for `grpo`.
    """
    return _compared(table, lambda reward: reward - reward.mean())


@RL_TERMS.register("rloo", needs={"rewards"})
def rloo(table: TokenTable) -> FloatArray:
    """`[n]`: `R` minus the mean of the group's *other* rewards, on every student token; 0 elsewhere.

    The baseline does not depend on the episode itself (arXiv 2402.14740). It is `n/(n−1)` times `dr-grpo` in groups of `n`.

    Raises:
        UserError: as for `grpo`.
    """
    return _compared(table, lambda reward: reward - (reward.sum() - reward) / (len(reward) - 1))


def _compared(table: TokenTable, advantage: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """`[n]`: `advantage` of each group's rewards, spread over student tokens."""
    reward = table.by_trajectory("reward")
    _, group = np.unique(table.by_trajectory("group"), return_inverse=True)
    out = np.zeros(table.n_trajectories)
    for members in _members(group):
        mine = reward[members]
        # The mean of equal floats can be off in the last bit, which a tiny std would blow up: compare, do not subtract.
        if mine.min() != mine.max():
            out[members] = advantage(mine)
    return np.where(table.is_action, out[table.trajectory], 0.0)


def _members(group: IntArray) -> list[IntArray]:
    """The trajectories of each group."""
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(order) else []
