"""Importance weights: what to make of tokens that were drawn from another policy than the one that is trained.

A sampler may differ from the trainer in arithmetic, in temperature, or because it is an earlier student (stored episodes). The
weight is a factor of both terms of a token's loss.

Sources: Ionides, "Truncated importance sampling" (2008); in policy gradients IMPALA (arXiv 1802.01561).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from agentdistill.signals.logspace import MAX_LOG_RATIO
from agentdistill.signals.registry import IMPORTANCE
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray


@IMPORTANCE.register("none")
def unweighted(table: TokenTable) -> FloatArray:
    """Every token counts as drawn from the student: `[n]` ones."""
    return np.ones(len(table))


@IMPORTANCE.register("truncated")
def truncated(table: TokenTable, *, cap: Annotated[float, Field(ge=1)] = 2.0) -> FloatArray:
    """`[n]`: `min(π(a) / μ(a), cap)` on student tokens, 0 elsewhere; `μ` is who sampled, as it sampled (arXiv 1802.01561).

    `π` is the student as it is now, at temperature 1, and `μ` the sampler at its temperature, before top-k and top-p, which
    nothing corrects. Without a cap that acts, the expected gradient at each position is that of the student's own samples;
    the states are still those that the sampler came to. The cap bounds the variance and biases towards 0.

    Args:
        table: needs `recomputed` and `behaviour`.
        cap: 2 is customary where only arithmetic differs.

    Raises:
        UserError: for a missing column, or a log-probability on a student token that is not finite.
    """
    ratio = table.on_actions("recomputed") - table.on_actions("behaviour")
    weight = np.minimum(np.exp(np.clip(ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)), cap)
    return np.where(table.is_action, weight, 0.0)
