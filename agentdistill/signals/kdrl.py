"""KDRL's reward-guided masking: the teacher is heard where the student fails (arXiv 2506.02208).

These are gates, so a masked token leaves the numerator of the distillation term only: it still counts in the aggregation.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from agentdistill.signals.registry import GATES
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import BoolArray, FloatArray

Threshold = Annotated[float, Field(description="reward above which an episode is right")]


@GATES.register("wrong", needs={"rewards"})
def wrong(table: TokenTable, *, threshold: Threshold = 0.0) -> FloatArray:
    """`[n]`: 1 on the student tokens of wrong episodes, those whose reward is not above `threshold`; 0 elsewhere.

    Args:
        table: needs `reward`.
        threshold: in units of the reward; 0 suits rewards of 0 or 1 and of ±1.

    Raises:
        UserError: when `reward` is missing, not finite, or differs within a trajectory.
    """
    return _open(table, ~right(table, threshold))


@GATES.register("wrong-group", needs={"rewards"})
def wrong_group(table: TokenTable, *, threshold: Threshold = 0.0) -> FloatArray:
    """`[n]`: 1 on the student tokens of groups in which every episode is wrong; 0 elsewhere.

    Args:
        table: needs `reward` and `group`.
        threshold: as for `wrong`.

    Raises:
        UserError: when `reward` or `group` is missing, not finite, or differs within a trajectory.
    """
    _, group = np.unique(table.by_trajectory("group"), return_inverse=True)
    solved = np.bincount(group, weights=right(table, threshold)) > 0
    return _open(table, ~solved[group])


def right(table: TokenTable, threshold: float) -> BoolArray:
    """`[N]`: which trajectories' rewards are above `threshold`."""
    above: BoolArray = table.by_trajectory("reward") > threshold
    return above


def _open(table: TokenTable, chosen: BoolArray) -> FloatArray:
    return (table.is_action & chosen[table.trajectory]).astype(np.float64)
