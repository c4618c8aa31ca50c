"""What the surrogate's probability ratio is taken against: `ρ = π / anchor`, the anchor given as a log-probability."""

from __future__ import annotations

from agentdistill.signals.registry import RATIOS
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray


@RATIOS.register("old")
def old_policy(table: TokenTable) -> FloatArray:
    """`[n]` nats: log π_old of the sampled tokens, as in PPO (arXiv 1707.06347)."""
    return table.on_actions("logprob")
