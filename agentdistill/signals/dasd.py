"""Divergence-aware choice of demonstrations: of a task's candidates, the one with the most that the student lacks.

Sources: DASD (arXiv 2601.09088); the count of teacher sentences, here steps, from provenance tracing (arXiv 2512.20908).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from agentdistill.signals.provenance import step_probability
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import IntArray, Trajectory


def teacher_steps(trajectories: Sequence[Trajectory], *, teacher: str, student: str, beta: float = 0.1) -> IntArray:
    """`[N]` how many steps of each trajectory the teacher would say and the student would not.

    A step counts when `p_T − p_S > beta`, `p` the geometric mean probability of its tokens. These are the steps of
    `Provenance.TEACHER` whatever the distilled student says, as long as `alpha ≤ beta` there.

    Args:
        trajectories: with scores of both models; the tokens may be anyone's, as long as they count as sampled.
        teacher, student: names of scorers, as in `Trajectory.scores`.
        beta: in probability.

    Raises:
        UserError: when a trajectory lacks a scorer, has scores for another number of tokens, or one that is not finite.
    """
    counts = np.zeros(len(trajectories), dtype=np.int64)
    for i, trajectory in enumerate(trajectories):
        table = _table(trajectory, {"teacher": teacher, "student": student})
        gain = step_probability(table, "teacher") - step_probability(table, "student")
        counts[i] = int((gain > beta).sum())
    return counts


def choose(trajectories: Sequence[Trajectory], *, teacher: str, student: str, beta: float = 0.1) -> list[Trajectory]:
    """One trajectory a task, in order of first appearance: the one with the most `teacher_steps`, the earlier of equals.

    A task is an environment and its task id. More steps give more chances to count: compare candidates of one task only.

    Raises:
        UserError: as for `teacher_steps`.
    """
    counts = teacher_steps(trajectories, teacher=teacher, student=student, beta=beta)
    tasks: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, trajectory in enumerate(trajectories):
        tasks[trajectory.env_id, trajectory.task_id].append(i)
    return [trajectories[max(candidates, key=lambda i: counts[i])] for candidates in tasks.values()]


def _table(trajectory: Trajectory, scorers: dict[str, str]) -> TokenTable:
    """The trajectory's tokens with a column of log-probs for each scorer."""
    stream = trajectory.stream()
    columns = {"trajectory": np.zeros(len(stream.ids)), "turn": stream.turn, "step": stream.step, "is_action": stream.is_action}
    for column, name in scorers.items():
        columns[column] = np.full(len(stream.ids), np.nan)
        columns[column][stream.is_action] = trajectory.scores_by(name).logprobs
    return TokenTable(columns)
