"""Generalised on-policy distillation: the teacher's gain over a reference as a reward, scaled (arXiv 2602.12125)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agentdistill.signals.opd import log_ratio
from agentdistill.signals.registry import SIGNALS
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray


@SIGNALS.register("g-opd", needs={"teacher", "reference"})
def g_opd(table: TokenTable, *, lam: Annotated[float, Field(ge=0)] = 1.25) -> FloatArray:
    """`[n]` nats: `log R − log π_old + λ (log T − log R)` of the sampled token; 0 off student tokens.

    Its expected gradient is that of `KL(π ‖ R^(1−λ) T^λ / Z)`. At `λ = 1` it is `opd` whatever the reference `R`;
    `λ > 1` goes on beyond the teacher, in the direction that led from `R` to it (ExOPD; 1.25 in the paper). With the
    teacher's own base model as `R` it is the paper's reward correction.

    Args:
        table: needs `logprob`, `teacher` and `reference` (also at `λ = 1`: a missing reference is never taken for that).
        lam: λ.

    Raises:
        UserError: for a missing column, or a log-probability on a student token that is not finite.
    """
    gain = table.on_actions("teacher") - table.on_actions("reference")
    return log_ratio(table) + (lam - 1.0) * gain
