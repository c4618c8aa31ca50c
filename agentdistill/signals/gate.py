"""Gates: a factor of each token's distillation term, beside the step weight. A gated token still counts in the aggregation."""

from __future__ import annotations

import numpy as np

from agentdistill.signals.registry import GATES
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import FloatArray


@GATES.register("none")
def open_gate(table: TokenTable) -> FloatArray:
    """Every token's distillation term counts: `[n]` ones."""
    return np.ones(len(table))
