"""RLAD's trust-region ratio distillation: the teacher is mixed into what the policy's ratio is taken against.

Source: arXiv 2602.22495.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from agentdistill.signals.registry import RATIOS
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray


@RATIOS.register("trrd", needs={"teacher"})
def trrd(table: TokenTable, *, alpha: Annotated[float, Field(ge=0, le=1)] = 0.5) -> FloatArray:
    """`[n]` nats: `α log π_old + (1−α) log T` of the sampled token, so that the ratio is `π / (π_old^α T^(1−α))`.

    At `α = 1` it is `old` to the bit. The paper's α is not known here; 0.5 is a guess.

    Args:
        table: needs `logprob` and `teacher`.
        alpha: α, the share of the policy that sampled.

    Raises:
        UserError: for a missing column, or a log-probability on a student token that is not finite.
    """
    return alpha * table.on_actions("logprob") + (1.0 - alpha) * table.on_actions("teacher")
