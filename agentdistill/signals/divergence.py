"""Divergences between full next-token distributions, differentiable in the student, and their sampled estimators.

Every divergence takes log-probabilities `[n, V]` of student and teacher and returns `[n]` nats, computed in float32 (or
float64 when the student is). A log-probability of −inf means probability 0: such an entry adds what the limit adds and
never a NaN. Where the student puts mass on what the teacher gives probability 0, the reverse KL is infinite, and so is
what is returned; likewise the forward KL with the roles exchanged. The others stay bounded. The teacher is detached.

Sources: GKD (arXiv 2306.13649); f-divergence survey (arXiv 2604.00626); DistiLLM (arXiv 2402.03898) for the skew form;
Schulman, "Approximating KL divergence" (2020), for k1 to k3.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from agentdistill.signals.registry import DIVERGENCES

MAX_LOG_RATIO = 20.0
"""Nats; log-ratios are clamped to ± this before `exp`."""

_TEACHER = frozenset({"teacher", "distribution"})
_NEG_INF = float("-inf")


@DIVERGENCES.register("none")
def no_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """No divergence term: `[n]` zeros."""
    return student.new_zeros(student.shape[:-1], dtype=torch.float32)


@DIVERGENCES.register("rkl", needs=_TEACHER)
def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """`KL(π‖T)`, `[n]` nats."""
    student, teacher = _prepare(student, teacher)
    return _kl(student, teacher)


@DIVERGENCES.register("fkl", needs=_TEACHER)
def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """`KL(T‖π)`, `[n]` nats."""
    student, teacher = _prepare(student, teacher)
    return _kl(teacher, student)


@DIVERGENCES.register("jsd", needs=_TEACHER)
def jensen_shannon(student: Tensor, teacher: Tensor, *, beta: Annotated[float, Field(ge=0, le=1)] = 0.5) -> Tensor:
    """Generalised Jensen–Shannon: `β·KL(T‖M) + (1−β)·KL(π‖M)` with `M = βT + (1−β)π`, `[n]` nats (arXiv 2306.13649).

    `β = 0` is the forward and `β = 1` the reverse KL, as in the paper. The formula itself tends to 0 there, so 0.001 is
    not close to 0.
    """
    if beta == 0:
        return forward_kl(student, teacher)
    if beta == 1:
        return reverse_kl(student, teacher)
    student, teacher = _prepare(student, teacher)
    mixture = _mix(teacher, student, beta)
    return beta * _kl(teacher, mixture) + (1 - beta) * _kl(student, mixture)


@DIVERGENCES.register("tvd", needs=_TEACHER)
def total_variation(student: Tensor, teacher: Tensor) -> Tensor:
    """`½ Σ |π − T|`, `[n]`, between 0 and 1."""
    student, teacher = _prepare(student, teacher)
    return 0.5 * (student.exp() - teacher.exp()).abs().sum(-1)


@DIVERGENCES.register("skew-rkl", needs=_TEACHER)
def skew_reverse_kl(student: Tensor, teacher: Tensor, *, alpha: Annotated[float, Field(ge=1e-6, lt=1)] = 0.1) -> Tensor:
    """`KL(π ‖ (1−α)T + απ)`, `[n]` nats, at most `−ln α` (arXiv 2402.03898)."""
    student, teacher = _prepare(student, teacher)
    return _kl(student, _mix(teacher, student, 1 - alpha))


def k1(logprob: Tensor, teacher: Tensor) -> Tensor:
    """`log π(a) − log T(a)` of sampled tokens: the unbiased reverse KL, whose expected gradient as a loss is 0."""
    return logprob - teacher.detach()


def k2(logprob: Tensor, teacher: Tensor) -> Tensor:
    """`½ (log π(a) − log T(a))²`: as a loss on the student's own samples its expected gradient is that of `KL(π‖T)`."""
    return 0.5 * (logprob - teacher.detach()) ** 2


def k3(logprob: Tensor, teacher: Tensor) -> Tensor:
    """`e^r − r − 1` with `r = log T(a) − log π(a)`: as a loss its expected gradient is that of `KL(T‖π)`.

    Past ±`MAX_LOG_RATIO` the exponential goes on along its tangent: the ratio is bounded, and a student far below the
    teacher still gets a gradient, which a plain clamp would cut to 0.
    """
    r = teacher.detach() - logprob
    held = r.detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return held.exp() * (1 + r - held) - r - 1


def _prepare(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    return student.to(dtype), teacher.detach().to(dtype)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`Σ p (log p − log q)` where entries with `p = 0` add nothing, to the value and to the gradient."""
    live = log_p > _NEG_INF
    log_p = torch.where(live, log_p, 0.0)
    log_q = torch.where(live, log_q, 0.0)
    return torch.where(live, log_p.exp() * (log_p - log_q), 0.0).sum(-1)


def _mix(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """`log(weight·e^first + (1−weight)·e^second)`; where both are −inf it stays −inf, with no NaN in the gradient."""
    dead = (first == _NEG_INF) & (second == _NEG_INF)
    first = torch.where(dead, 0.0, first) + math.log(weight)
    second = torch.where(dead, 0.0, second) + math.log1p(-weight)
    return torch.where(dead, _NEG_INF, torch.logaddexp(first, second))
