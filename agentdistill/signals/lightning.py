"""Lightning OPD: the teacher scored the rollouts once, and is not there while training (arXiv 2604.13010)."""

from __future__ import annotations

from agentdistill.signals.registry import SIGNALS
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray


@SIGNALS.register("lightning", needs={"teacher"})
def lightning(table: TokenTable) -> FloatArray:
    """`[n]` nats: `log T(a) − log π(a)` with the cached `T` and the student as it is *now*; 0 off student tokens.

    On rollouts of the present student it is `opd`. On stored ones the student has moved since it sampled: the signal
    follows it (`recomputed`), whatever policy `logprob` says sampled, so it is 0 where the student has become the teacher.

    Args:
        table: needs `teacher`, from the cache, and `recomputed`.

    Raises:
        UserError: for a missing column, or a log-probability on a student token that is not finite.
    """
    return table.on_actions("teacher") - table.on_actions("recomputed")
