"""Dual-constrained distillation from pairs: the chosen of two episodes is imitated, and both are distilled on.

Source: DCKD, the stage before ADPA (arXiv 2502.17927). The paper's pairs are annotated preferences; here the pairs are
episodes of one task, of which one was right and one wrong.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor

from agentdistill.signals.kdrl import Threshold, right
from agentdistill.signals.logspace import kl, prepare, scaled
from agentdistill.signals.registry import DIVERGENCES, GATES
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray

Factor = Annotated[float, Field(ge=0)]


@DIVERGENCES.register("dckd", needs=frozenset({"teacher", "distribution", "ids", "rewards"}))
def dual_constrained(
    student: Tensor, teacher: Tensor, ids: Tensor, reward: Tensor, *,
    sft: Factor = 1.0, alpha: Factor = 0.2, threshold: Threshold = 0.0,
) -> Tensor:  # fmt: skip
    """`sft·1[chosen]·(−log π(a)) + α·KL(T‖π)`, `[n]` nats; chosen are the tokens of right episodes (arXiv 2502.17927).

    Args:
        ids: `[n]` the tokens of the trajectory.
        reward: `[n]` of each token's episode; an episode is right where it is above `threshold`.
        sft: factor of the imitation of the chosen.
        alpha: factor of the forward KL, on chosen and rejected alike (0.2 in the paper).
    """
    student, teacher = prepare(student, teacher)
    label = -student.gather(-1, ids[..., None])[..., 0]
    chosen = (reward > threshold).to(label.dtype)
    return scaled(sft * chosen, label) + scaled(alpha, kl(teacher, student))


@GATES.register("paired", needs={"rewards", "groups"})
def paired(table: TokenTable, *, threshold: Threshold = 0.0) -> FloatArray:
    """`[n]`: on student tokens of groups with right and wrong episodes, group size / (2 · episodes of the token's kind).

    0 in groups that are all right or all wrong, and off student tokens. Each kind weighs half a group, whatever their
    numbers: under `seq-mean-token-mean` a group's loss is its size times half the mean over all its pairs of the sum of the
    two episodes' losses. Ours; DCKD's own pairs (arXiv 2502.17927) are one to one.

    Args:
        table: needs `reward` and `group`.
        threshold: reward above which an episode is right.

    Raises:
        UserError: when `reward` or `group` is missing, not finite, or differs within a trajectory.
    """
    won = right(table, threshold)
    _, group = np.unique(table.by_trajectory("group"), return_inverse=True)
    # An episode without a student token says nothing, so it is nobody's other half.
    present = table.sum_by_trajectory(np.ones(len(table))) > 0
    counts = np.zeros((int(group.max(initial=-1)) + 1, 2))
    np.add.at(counts, (group[present], won[present].astype(int)), 1.0)
    mine, size = counts[group, won.astype(int)], counts.sum(1)[group]
    weight = np.where(counts.min(1)[group] > 0, size / np.maximum(2 * mine, 1.0), 0.0)
    return np.where(table.is_action, weight[table.trajectory], 0.0)
