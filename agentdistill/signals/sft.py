"""Imitation of tokens that somebody else wrote: what DASD does with what a teacher says behind the student's turns.

Source: DASD (arXiv 2601.09088).
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentdistill.signals.registry import DIVERGENCES


@DIVERGENCES.register("sft", needs={"demonstrations"})
def imitation(logprob: Tensor) -> Tensor:
    """`−log π(a)`, `[n]` nats: the cross-entropy of the token that was written (arXiv 2601.09088).

    On tokens that the student sampled itself its expected gradient is 0, which is why it asks for those of somebody else.
    """
    return -(logprob if logprob.dtype == torch.float64 else logprob.float())
