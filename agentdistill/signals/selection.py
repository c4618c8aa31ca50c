"""Token selection: which of the tokens that may carry loss are kept. What is dropped never reaches the head in the update."""

from __future__ import annotations

from agentdistill.signals.registry import SELECTIONS
from agentdistill.signals.table import TokenTable
from agentdistill.trajectory import BoolArray


@SELECTIONS.register("none")
def every_token(table: TokenTable, mask: BoolArray) -> BoolArray:
    """`[n]`: all tokens that may carry loss."""
    return mask
