"""On-policy distillation as a policy gradient: the per-token reward is the teacher's log-ratio of the sampled token.

Sources: GKD (arXiv 2306.13649); Thinking Machines, "On-Policy Distillation" (2025).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from agentdistill.signals.registry import SIGNALS
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray


@SIGNALS.register("none")
def no_signal(table: TokenTable) -> FloatArray:
    """No distillation signal: `[n]` zeros."""
    return np.zeros(len(table))


@SIGNALS.register("opd", needs={"teacher"})
def opd(table: TokenTable, *, gamma: Annotated[float, Field(ge=0, le=1)] = 0.0) -> FloatArray:
    """`[n]` nats: `Σ_{i≥t} γ^{i−t} r_i` with `r = log T(a) − log π_old(a)`; 0 off student tokens.

    Args:
        table: needs `logprob` and `teacher`.
        gamma: discount; 0 credits a token with its own log-ratio only, whose expected gradient is that of the
            per-token reverse KL; 1 gives the gradient of the whole sequence's reverse KL. Only student tokens count
            as time, and the sum stays within the trajectory.

    Raises:
        UserError: for a missing column, or a log-probability on a student token that is not finite.
    """
    ratio = log_ratio(table)
    return _reward_to_go(ratio, table, gamma) if gamma else ratio


def log_ratio(table: TokenTable) -> FloatArray:
    """`[n]` nats: `r_t = log T(a) − log π_old(a)` on student tokens, 0 elsewhere.

    Raises:
        UserError: for a missing column, or a log-probability on a student token that is not finite.
    """
    return table.on_actions("teacher") - table.on_actions("logprob")


def _reward_to_go(reward: FloatArray, table: TokenTable, gamma: float) -> FloatArray:
    """Walk back from every trajectory's last student token at once; one pass a token of the longest trajectory."""
    rows = np.flatnonzero(table.is_action)
    count = np.bincount(table.trajectory[rows], minlength=table.n_trajectories)
    last = np.cumsum(count) - 1
    out = np.zeros(len(table))
    carry = np.zeros(table.n_trajectories)
    for back in range(int(count.max(initial=0))):
        alive = np.flatnonzero(count > back)
        here = rows[last[alive] - back]
        carry[alive] = reward[here] + gamma * carry[alive]
        out[here] = carry[alive]
    return out
