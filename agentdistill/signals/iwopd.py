"""Importance-weighted on-policy distillation: tokens before the student has drifted count for more (arXiv 2606.22600)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from agentdistill.signals.opd import log_ratio
from agentdistill.signals.registry import SIGNALS
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray


@SIGNALS.register("iw-opd", needs={"teacher"})
def iw_opd(table: TokenTable, *, gamma: Annotated[float, Field(ge=0)] = 0.5) -> FloatArray:
    """`[n]` nats: `w_t r_t` with `w_t = 1 + γ (1 − Σ_{i<t}|r_i| / Σ_i |r_i|)`, sums over the trajectory's student tokens.

    The first token that counts weighs `1 + γ` and the weight falls to just above 1 at the last. The token's own `|r_t|` is not
    in its weight, but it is in the total, so the expected gradient is not that of a reweighted KL exactly.

    Args:
        table: needs `logprob` and `teacher`.
        gamma: γ; 0 is `opd`.

    Raises:
        UserError: for a missing column, or a log-probability on a student token that is not finite.
    """
    ratio = log_ratio(table)
    size = np.abs(ratio)
    total = table.sum_by_trajectory(size)
    so_far = np.cumsum(np.append(0.0, size))[:-1]  # before each row, in the whole batch
    start = np.flatnonzero(np.diff(table.trajectory, prepend=-1))
    before = so_far - so_far[start][table.trajectory]
    # Where a trajectory agrees with the teacher throughout, every signal is 0 and its weight does not matter.
    share = before / np.where(total > 0, total, 1.0)[table.trajectory]
    weight: FloatArray = 1.0 + gamma * (1.0 - share)
    return weight * ratio
