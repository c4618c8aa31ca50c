"""SOD's step weights (arXiv 2605.07725): steps where the student has drifted from the teacher count for less."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from agentdistill.signals.registry import STEP_WEIGHTS
from agentdistill.signals.table import Steps, TokenTable
from agentdistill.trajectory import FloatArray

Reference = Literal["first", "first-above-floor", "median"]


@STEP_WEIGHTS.register("none")
def uniform(table: TokenTable) -> FloatArray:
    """Every step counts the same: `[n]` ones."""
    return np.ones(len(table))


@STEP_WEIGHTS.register("sod", needs={"teacher"})
def sod(
    table: TokenTable,
    *,
    delta: Annotated[float, Field(ge=0)] = 0.2,
    eps: Annotated[float, Field(gt=0)] = 1e-6,
    reference: Reference = "first",
    floor: Annotated[float, Field(ge=0)] = 0.1,
) -> FloatArray:
    """`[n]`: `w_k = min((d_ref + ε) / (d_k + ε), 1 + δ)` on step k's tokens, 0 off student tokens.

    `d_k` is the mean over step k's tokens of `|log π_old − log T|`. With `reference="first"` this is the paper's
    `min(Π_{u<k} (d_u+ε)/(d_{u+1}+ε), 1+δ)`: the product telescopes, only what is emitted is clipped, and `w_1 = 1`.
    A trivial first step (`d_1 ≈ 0`) drives every later weight to almost 0, hence the other references, which are ours.

    Args:
        table: needs `logprob`, `teacher` and a step id on every student token.
        delta: how far a weight may exceed 1.
        eps: nats, keeps the ratio finite.
        reference: `first` step of the trajectory; `first-above-floor`, the first with `d` above `floor`, or the
            largest `d` where none is; `median` over the trajectory's steps.
        floor: nats per token, read by `first-above-floor` only.

    Raises:
        UserError: for a missing column, a student token without a step id, or a log-probability that is not finite.
    """
    drift = step_drift(table)
    weight = (_reference(drift, table.steps, reference, floor) + eps) / (drift + eps)
    return table.spread_steps(np.minimum(weight, 1 + delta))


def step_drift(table: TokenTable) -> FloatArray:
    """`[n_steps]` nats: `d_k`, the mean over each step's tokens of `|log π_old − log T|`.

    Raises:
        UserError: for a missing column, a student token without a step id, or a log-probability that is not finite.
    """
    return table.mean_by_step(np.abs(table.on_actions("logprob") - table.on_actions("teacher")))


def _reference(drift: FloatArray, steps: Steps, reference: Reference, floor: float) -> FloatArray:
    """`[n_steps]` the reference divergence of each step's trajectory."""
    starts = np.flatnonzero(np.diff(steps.trajectory, prepend=-1))
    picked = [_pick(part, reference, floor) for part in np.split(drift, starts[1:])] if len(drift) else []
    return np.repeat(np.array(picked, dtype=np.float64), np.diff(np.append(starts, len(drift))))


def _pick(drift: FloatArray, reference: Reference, floor: float) -> float:
    """The reference among one trajectory's step divergences, in order."""
    if reference == "median":
        return float(np.median(drift))
    if reference == "first":
        return float(drift[0])
    above = drift[drift > floor]
    return float(above[0] if len(above) else drift.max())
