"""Control variates for the sampled signal: what is subtracted may depend on the position, never on the token that was drawn.

Source: vOPD (arXiv 2605.07865).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated

import numpy as np
from pydantic import Field

from agentdistill.signals.divergence import reverse_kl
from agentdistill.signals.registry import BASELINES, Measure
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray

TopK = Annotated[int | None, Field(ge=1)]


@BASELINES.register("none")
def no_baseline(table: TokenTable) -> FloatArray:
    """No control variate: `[n]` zeros."""
    return np.zeros(len(table))


def _measures(*, top_k: int | None) -> Mapping[str, Measure]:
    """The reverse KL on the student's top-k ids, both sides renormalised there; over the whole vocabulary it is `rkl`."""
    return {} if top_k is None else {"rkl_topk": partial(reverse_kl, support="student", k=top_k)}


def _check(*, top_k: int | None) -> None:
    """Refuse a support on which both sides are always the same."""
    if top_k == 1:
        raise ValueError(
            "top_k = 1 leaves one id of probability 1 on both sides, so nothing would be subtracted, as with baseline 'none'; "
            "set top_k to 2 or more"
        )


@BASELINES.register("vopd", needs={"teacher", "distribution"}, measures=_measures, check=_check)
def vopd(table: TokenTable, *, top_k: TopK = None) -> FloatArray:
    """`[n]` nats: `−KL(π‖T)` at each position, the value function of `r_t` in closed form.

    A baseline is subtracted, so the advantage is `r_t + RKL_t`, whose mean under the student is 0 at every position.
    With `top_k` the KL is taken over the student's `k` most likely ids, both sides renormalised on them: the mean
    is no longer exactly 0, but the expected gradient is the same. The sampled token need not be among them.

    Args:
        table: needs `rkl`, or `rkl_topk` with `top_k`.
        top_k: ids to look at, 2 or more (100 in the paper); null, or the vocabulary's size and more, is the full KL.

    Raises:
        UserError: when the column is missing or is not finite on a student token.
    """
    return -table.on_actions("rkl" if top_k is None else "rkl_topk")
