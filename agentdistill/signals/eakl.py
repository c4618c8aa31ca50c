"""Entropy-aware KL: mode-seeking where the teacher is sure, mass-covering where it is not (EdgeRazor, arXiv 2605.04062)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from agentdistill.signals.logspace import NEG_INF, entropy, kl, prepare, scaled
from agentdistill.signals.registry import DIVERGENCES


@DIVERGENCES.register("eakl", needs=frozenset({"teacher", "distribution"}))
def entropy_aware_kl(
    student: Tensor, teacher: Tensor, *,
    k: Annotated[int | None, Field(ge=2)] = None, rows: Annotated[int, Field(ge=1)] = 1,
) -> Tensor:  # fmt: skip
    """`γ·KL(π‖T) + (1−γ)·KL(T‖π)` with `γ = clip(1 − H̄_T / ln k, 0, 1)`, detached; `[n]` nats.

    A row that is −inf throughout, on either side, is padding: it is 0 and does not count in the mean entropy.

    Args:
        k: the number of ids whose uniform distribution means "not sure at all"; None is all that the teacher gives a
            probability above 0.
        rows: over how many consecutive tokens the teacher's entropy is averaged. At 1, ours, each token has a γ of its own
            and its loss depends on nothing else. The paper averages over its batch; here the most that can be averaged
            over is what a call holds, a chunk of positions, so larger numbers make the loss depend on how tokens are
            chunked.
    """
    student, teacher = prepare(student, teacher)
    padding = (student == NEG_INF).all(-1) | (teacher == NEG_INF).all(-1)
    count = (teacher > NEG_INF).sum(-1).clamp(min=2).to(teacher) if k is None else torch.full_like(teacher[..., 0], k)
    gamma = (1 - _block_mean(entropy(teacher) / count.log(), ~padding, rows)).clamp(0, 1)
    value = scaled(gamma, kl(student, teacher)) + scaled(1 - gamma, kl(teacher, student))
    return value.masked_fill(padding, 0.0)


def _block_mean(values: Tensor, counted: Tensor, rows: int) -> Tensor:
    """`[n]`: each entry's mean over its block of `rows` consecutive entries, of those that are counted."""
    block = torch.arange(len(values), device=values.device) // rows
    size = values.new_zeros(-(-len(values) // rows))
    total = size.index_add(0, block, values * counted)
    return (total / size.index_add(0, block, counted.to(values.dtype)).clamp(min=1))[block]
