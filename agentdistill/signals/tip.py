"""TIP: only the tokens that carry the most information are trained on (arXiv 2604.14084)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from agentdistill.signals.divergence import forward_kl, reverse_kl
from agentdistill.signals.registry import SELECTIONS, Measure
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import BoolArray, FloatArray

Score = Literal["soft-or", "entropy", "q3"]

CEILING = 0.98
"""The quantile at which entropies are cut, so that one odd token does not squeeze all others together."""


def _measures(*, score: Score, ratio: float) -> Mapping[str, Measure]:
    """What each score reads of the teacher's distributions; by entropy alone, nothing."""
    measured: dict[Score, dict[str, Measure]] = {"soft-or": {"rkl": reverse_kl}, "q3": {"fkl": forward_kl}, "entropy": {}}
    return measured[score]


@SELECTIONS.register("tip", measures=_measures)
def tip(
    table: TokenTable, mask: BoolArray, *, score: Score = "soft-or", ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
) -> BoolArray:
    """`[n]` bool: the `max(1, ⌊ratio·m⌋)` tokens with the highest score among the batch's `m` that may carry loss.

        soft-or   ĥ + δ̂ − ĥ·δ̂     uncertain, or far from the teacher
        entropy   H(π)             uncertain
        q3        FKL·(1 − ĥ)      sure of itself and wrong

    `ĥ = minmax(min(H(π), q_0.98))` and `δ̂ = minmax(KL(π‖T))` over those tokens, both in [0, 1]; where all are equal,
    minmax is 0. The paper's `H / ln V` is the same: minmax takes the constant out. Of equal scores the earlier rows win.

    Args:
        table: needs `entropy`, and `rkl` (soft-or) or `fkl` (q3).
        mask: `[n]` which tokens may carry loss.
        score: which one.
        ratio: ρ, the share kept; 1 keeps all, which is the method without a selection.

    Raises:
        UserError: when a column is missing or is not finite on a student token.
    """
    entropy = table.on_actions("entropy")[mask]
    if score == "entropy":
        points = entropy
    elif score == "q3":
        points = table.on_actions("fkl")[mask] * (1.0 - _uncertainty(entropy))
    else:
        points = 1.0 - (1.0 - _uncertainty(entropy)) * (1.0 - _minmax(table.on_actions("rkl")[mask]))
    count = max(1, int(ratio * len(points)))
    kept = np.zeros(len(table), dtype=np.bool_)
    kept[np.flatnonzero(mask)[np.argsort(-points, kind="stable")[:count]]] = True
    return kept


def _uncertainty(entropy: FloatArray) -> FloatArray:
    """`[m]`: ĥ."""
    return _minmax(np.minimum(entropy, np.quantile(entropy, CEILING))) if len(entropy) else entropy


def _minmax(values: FloatArray) -> FloatArray:
    """`[m]`: stretched to [0, 1]; zeros where all are equal."""
    if not len(values) or values.min() == values.max():
        return np.zeros_like(values)
    spread: FloatArray = (values - values.min()) / (values.max() - values.min())
    return spread
