"""Logit standardization: distil what the logits look like, not their offset and scale (arXiv 2403.01427)."""

from __future__ import annotations

import torch
from torch import Tensor

from agentdistill.signals.logspace import NEG_INF, Temperature, finite, kl, normalise, prepare
from agentdistill.signals.registry import DIVERGENCES

_FLAT = 1e-5
"""Nats; logits that spread less are equal up to rounding, and dividing by their deviation would blow that up."""


@DIVERGENCES.register("logit-std", needs=frozenset({"teacher", "distribution"}))
def standardised_kl(student: Tensor, teacher: Tensor, *, temperature: Temperature = 2.0) -> Tensor:
    """`τ²·KL(T′‖π′)`, `[n]` nats, where both primes are `softmax(z / τ)` of logits with mean 0 and deviation 1.

    Log-probs are logits up to a constant, which the mean takes away. Only ids of probability above 0 count in mean and
    deviation. The value is 0 wherever the teacher's logits are `a·z + b` of the student's with `a > 0`: it fixes the order
    and the shape of the student's distribution and leaves its sharpness free.
    """
    student, teacher = prepare(student, teacher)
    student, teacher = (normalise(standardised(side) / temperature) for side in (student, teacher))
    return temperature**2 * kl(teacher, student)


def standardised(logp: Tensor) -> Tensor:
    """Each row with mean 0 and (unbiased) standard deviation 1 over its finite entries; a flat row becomes 0."""
    live = logp > NEG_INF
    count = live.sum(-1, keepdim=True)
    mean = finite(logp).sum(-1, keepdim=True) / count.clamp(min=1)
    deviation = torch.where(live, logp - mean, 0.0)
    variance = (deviation**2).sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    flat = variance < _FLAT**2
    z = torch.where(flat, 0.0, deviation * torch.where(flat, 1.0, variance).rsqrt())
    return z.masked_fill(~live, NEG_INF)
