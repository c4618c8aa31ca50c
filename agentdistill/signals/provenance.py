"""Where each step of a distilled student comes from: the teacher, the student as it was, both, or neither.

Source: provenance tracing (arXiv 2512.20908), whose unit is the sentence; here it is the step.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from agentdistill.errors import UserError
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray, IntArray


class Provenance(IntEnum):
    """A step's class; every step has exactly one."""

    SHARED = 0  # all three models would say it about as readily
    TEACHER = 1  # the teacher would say it, the student before would not
    STUDENT = 2  # the student before would say it, the teacher would not
    BOOSTED = 3  # the two agree, and distillation moved the student away from both


def provenance(
    table: TokenTable,
    *,
    teacher: str = "teacher",
    student: str = "student",
    distilled: str = "distilled",
    alpha: float = 0.1,
    beta: float = 0.1,
) -> IntArray:
    """`[n_steps]` the `Provenance` of each step, in the order of `table.steps`.

    With `p` a model's geometric mean probability of the step's tokens, the first that holds: shared if all three `p` are
    within `alpha` of each other; teacher if `p_T − p_S > beta`; student if `p_S − p_T > beta`; boosted.

    Args:
        table: log-probs of the same tokens, in nats, in the three columns named next.
        teacher: T.
        student: S, the student before distillation.
        distilled: D, the student after.
        alpha: in probability. The paper gives 0.1 for `beta`; for `alpha` it is a guess.
        beta: in probability.

    Raises:
        UserError: for a missing column, a log-probability on a student token that is not finite, a student token without
            a step id, or a bound below 0.
    """
    for name, bound in (("alpha", alpha), ("beta", beta)):
        if not bound >= 0:
            raise UserError(f"provenance: {name} is {bound}; it must be at least 0")
    t, s, d = (step_probability(table, name) for name in (teacher, student, distilled))
    spread = np.maximum(np.maximum(t, s), d) - np.minimum(np.minimum(t, s), d)
    classes = [Provenance.SHARED, Provenance.TEACHER, Provenance.STUDENT]
    found = np.select([spread <= alpha, t - s > beta, s - t > beta], [int(c) for c in classes], int(Provenance.BOOSTED))
    return found.astype(np.int64)


def step_probability(table: TokenTable, name: str) -> FloatArray:
    """`[n_steps]` in [0, 1]: `exp` of the mean log-prob of each step's tokens in the column `name`.

    Raises:
        UserError: as for `provenance`.
    """
    return np.exp(table.mean_by_step(table.on_actions(name)))
