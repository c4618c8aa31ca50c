"""Arithmetic on log-probabilities in which −inf means probability 0 and never makes a NaN, in value or gradient.

Everything is computed in float32, or in float64 where the student is float64.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Nats; log-ratios are bounded by this before `exp`."""

NEG_INF = float("-inf")

FLOOR = -1e30
"""Stands for −inf where one would make a NaN: in a factor that a probability of 0 multiplies, and in running sums."""

Temperature = Annotated[float, Field(gt=0)]


def prepare(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the dtype to compute in, the teacher detached."""
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    return student.to(dtype), teacher.detach().to(dtype)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`Σ p (log p − log q)` over the last axis, nats; infinite where q has nothing of what p has."""
    plain = torch.linalg.vecdot(log_p.exp(), log_p - log_q)  # a fifth of the time; whatever a −inf spoils shows in the sum
    return plain if bool(plain.isfinite().all()) else kl_terms(log_p, log_q).sum(-1)


def kl_terms(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`p (log p − log q)` by entry: 0 where `p = 0`, and where only `q = 0` infinite, without a gradient."""
    gap = log_p.clamp(min=FLOOR) - log_q.clamp(min=FLOOR)
    return (log_p.exp() * gap).masked_fill(gap > -FLOOR / 2, math.inf)


def entropy(logp: Tensor) -> Tensor:
    """`−Σ p log p` over the last axis, nats."""
    plain = -torch.linalg.vecdot(logp.exp(), logp)  # as in `kl`
    return plain if bool(plain.isfinite().all()) else -(logp.exp() * finite(logp)).sum(-1)


def finite(logp: Tensor) -> Tensor:
    """The same with 0 for −inf: for a factor that a probability of 0 multiplies."""
    return logp.masked_fill(logp == NEG_INF, 0.0)


def mix(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """`log(weight·e^first + (1−weight)·e^second)`."""
    dead = (first == NEG_INF) & (second == NEG_INF)
    first = first.masked_fill(dead, 0.0) + math.log(weight)  # one finite side is enough for a gradient without NaN
    return torch.logaddexp(first, second + math.log1p(-weight)).masked_fill(dead, NEG_INF)


def log_sum(logp: Tensor) -> Tensor:
    """`log Σ e^logp` over the last axis, kept as an axis of 1."""
    empty = (logp == NEG_INF).all(-1, keepdim=True)
    return torch.logsumexp(logp.masked_fill(empty, 0.0), -1, keepdim=True).masked_fill(empty, NEG_INF)


def normalise(logits: Tensor) -> Tensor:
    """Log-softmax over the last axis; a row of probability 0 everywhere stays as it is."""
    empty = (logits == NEG_INF).all(-1, keepdim=True)
    return torch.log_softmax(logits.masked_fill(empty, 0.0), -1).masked_fill(empty, NEG_INF)


def tempered(logp: Tensor, temperature: float) -> Tensor:
    """The distribution whose logits are divided by `temperature`; at 1 the very tensor that came in."""
    return logp if temperature == 1 else normalise(logp / temperature)


def scaled(weight: Tensor | float, value: Tensor) -> Tensor:
    """`weight · value` where a weight of 0 leaves nothing, not even of an infinite value."""
    weight = torch.as_tensor(weight, dtype=value.dtype, device=value.device)
    return weight * torch.where(weight == 0, 0.0, value)
