"""Gates that trust the teacher where what it prefers agrees with how the episode ended, or where it prefers anything.

Sources: RG-OPD (arXiv 2607.04037) for episodes, SG-OPD (arXiv 2606.09304) for tokens; SDAR (arXiv 2605.15155) for the sigmoid.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from agentdistill.signals.kdrl import Threshold, right
from agentdistill.signals.opd import log_ratio
from agentdistill.signals.registry import GATES
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray

Unit = Literal["trajectory", "step", "token"]
Factor = Annotated[float, Field(ge=0)]


@GATES.register("gated", needs={"teacher", "rewards"})
def gated(
    table: TokenTable,
    *,
    unit: Unit = "trajectory",
    threshold: Threshold = 0.0,
    delta: Factor = 0.0,
    agree: Factor = 1.0,
    conflict: Factor = 0.0,
) -> FloatArray:
    """`[n]`: `agree` where the teacher takes the outcome's side, `conflict` where it does not; 0 off student tokens.

    With `g` the sum of `log T − log π_old` over the unit, it takes the outcome's side when the episode is right and
    `g > δ`, or wrong and `g < −δ`; at `g = ±δ` it does not. By trajectory that is the gate of RG-OPD (arXiv 2607.04037),
    except that an episode is right by its reward and not by its advantage. By token, with `agree` above 1, it is in the
    manner of SG-OPD (arXiv 2606.09304). Units of a step are ours.

    Args:
        table: needs `logprob`, `teacher` and `reward`, and for steps a step id on every student token.
        unit: what is weighed as one.
        threshold: reward above which an episode is right.
        delta: nats; how clear the preference has to be.
        agree, conflict: the gate's two values.

    Raises:
        UserError: for a missing column, a reward that differs within a trajectory, or a log-probability on a student
            token that is not finite.
    """
    gap = log_ratio(table)
    if unit == "trajectory":
        gap = table.sum_by_trajectory(gap)[table.trajectory]
    elif unit == "step":
        gap = table.spread_steps(table.mean_by_step(gap) * table.steps.size)
    sided = np.where(right(table, threshold)[table.trajectory], gap > delta, gap < -delta)
    return np.where(table.is_action, np.where(sided, agree, conflict), 0.0)


@GATES.register("sigmoid", needs={"teacher"})
def sigmoid(table: TokenTable, *, scale: Factor = 1.0) -> FloatArray:
    """`[n]`: `1 / (1 + exp(−scale · (log T − log π_old)))` on student tokens, 0 elsewhere.

    It is open where the teacher would say the token sooner than the student, and attenuates what the teacher rejects.
    The scale of SDAR (arXiv 2605.15155) is not known here; 1 is a guess.

    Args:
        table: needs `logprob` and `teacher`.
        scale: per nat; 0 is a constant one half.

    Raises:
        UserError: for a missing column, or a log-probability on a student token that is not finite.
    """
    return np.where(table.is_action, np.exp(-np.logaddexp(0.0, -scale * log_ratio(table))), 0.0)
