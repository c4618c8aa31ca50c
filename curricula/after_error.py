"""Step weights that look for the first error and trust the teacher less behind it (ablations of SOD, arXiv 2605.07725)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from agentdistill.curricula.sod import step_drift
from agentdistill.signals.registry import STEP_WEIGHTS
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray

Threshold = Annotated[float, Field(ge=0, description="nats per token above which a step is an error")]


@STEP_WEIGHTS.register("mask-after-error", needs={"teacher"})
def mask_after_error(table: TokenTable, *, threshold: Threshold = 1.0) -> FloatArray:
    """`[n]`: 1 up to the first error and on it, 0 on every later step and off student tokens.

    Args:
        table: needs `logprob`, `teacher` and a step id on every student token.
        threshold: the first step whose `d_k` (see `sod`) exceeds it is the error. The paper's is not known here.

    Raises:
        UserError: for a missing column, a student token without a step id, or a log-probability that is not finite.
    """
    return table.spread_steps(_behind(table, threshold) == 0)


@STEP_WEIGHTS.register("decay-after-error", needs={"teacher"})
def decay_after_error(
    table: TokenTable, *, threshold: Threshold = 1.0, rate: Annotated[float, Field(ge=0, le=1)] = 0.9
) -> FloatArray:
    """`[n]`: `rate^(k − k_err)` on the steps behind the first error, 1 before and on it, 0 off student tokens.

    Args:
        table: needs `logprob`, `teacher` and a step id on every student token.
        threshold: as for `mask-after-error`.
        rate: 0.9 in the paper.

    Raises:
        UserError: as for `mask-after-error`.
    """
    return table.spread_steps(rate ** _behind(table, threshold))


def _behind(table: TokenTable, threshold: float) -> FloatArray:
    """`[n_steps]` how many steps each lies behind its trajectory's first error; 0 before it, on it and without one."""
    steps = table.steps
    place = np.arange(len(steps.size))
    error = np.full(table.n_trajectories, len(place))
    np.minimum.at(error, steps.trajectory, np.where(step_drift(table) > threshold, place, len(place)))
    behind: FloatArray = np.maximum(place - error[steps.trajectory], 0).astype(np.float64)
    return behind
