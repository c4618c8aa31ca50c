"""Divergences between full next-token distributions, differentiable in the student: the f-divergence family.

Every divergence takes log-probabilities `[n, V]` of student and teacher and returns `[n]` nats, computed in float32 (or
float64 when the student is). A log-probability of −inf means probability 0: such an entry adds what the limit adds and
never a NaN. Where the student puts mass on what the teacher gives probability 0, the reverse KL is infinite, and so is
what is returned; likewise the forward KL with the roles exchanged. The others stay bounded. The teacher is detached.

The KLs and the JSD can be taken at a `temperature` that divides both sides' logits, as GKD has it (no factor T²), and over
a top-k `support` (see `support.py`).

Sources: GKD (arXiv 2306.13649); f-divergence survey (arXiv 2604.00626); DistiLLM (arXiv 2402.03898) for the skew forms.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from agentdistill.signals.logspace import Temperature, kl, mix, prepare, tempered
from agentdistill.signals.registry import DIVERGENCES
from agentdistill.signals.support import Support, Tail, TopK, check_support, likeliest, on_support

_TEACHER = frozenset({"teacher", "distribution"})

Skew = Annotated[float, Field(ge=1e-6, lt=1)]


@DIVERGENCES.register("none")
def no_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """No divergence term: `[n]` zeros."""
    return student.new_zeros(student.shape[:-1], dtype=torch.float32)


@DIVERGENCES.register("rkl", needs=_TEACHER, check=check_support, top=likeliest)
def reverse_kl(
    student: Tensor, teacher: Tensor, *,
    temperature: Temperature = 1.0, support: Support = "full", k: TopK = None, tail: Tail = "renormalise",
) -> Tensor:  # fmt: skip
    """`KL(π‖T)`, `[n]` nats (arXiv 2306.13649)."""
    student, teacher = _view(student, teacher, temperature, support, k, tail)
    return kl(student, teacher)


@DIVERGENCES.register("fkl", needs=_TEACHER, check=check_support, top=likeliest)
def forward_kl(
    student: Tensor, teacher: Tensor, *,
    temperature: Temperature = 1.0, support: Support = "full", k: TopK = None, tail: Tail = "renormalise",
) -> Tensor:  # fmt: skip
    """`KL(T‖π)`, `[n]` nats (arXiv 2306.13649)."""
    student, teacher = _view(student, teacher, temperature, support, k, tail)
    return kl(teacher, student)


@DIVERGENCES.register("jsd", needs=_TEACHER, check=check_support, top=likeliest)
def jensen_shannon(
    student: Tensor, teacher: Tensor, *, beta: Annotated[float, Field(ge=0, le=1)] = 0.5,
    temperature: Temperature = 1.0, support: Support = "full", k: TopK = None, tail: Tail = "renormalise",
) -> Tensor:  # fmt: skip
    """Generalised Jensen–Shannon: `β·KL(T‖M) + (1−β)·KL(π‖M)` with `M = βT + (1−β)π`, `[n]` nats (arXiv 2306.13649).

    `β = 0` is the forward and `β = 1` the reverse KL, as in the paper. The formula itself tends to 0 there, so 0.001 is
    not close to 0.
    """
    student, teacher = _view(student, teacher, temperature, support, k, tail)
    if beta in (0, 1):
        return kl(student, teacher) if beta else kl(teacher, student)
    mixture = mix(teacher, student, beta)
    return beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)


@DIVERGENCES.register("tvd", needs=_TEACHER)
def total_variation(student: Tensor, teacher: Tensor) -> Tensor:
    """`½ Σ |π − T|`, `[n]`, between 0 and 1 (arXiv 2604.00626)."""
    student, teacher = prepare(student, teacher)
    return 0.5 * (student.exp() - teacher.exp()).abs().sum(-1)


@DIVERGENCES.register("skew-rkl", needs=_TEACHER)
def skew_reverse_kl(student: Tensor, teacher: Tensor, *, alpha: Skew = 0.1) -> Tensor:
    """`KL(π ‖ (1−α)T + απ)`, `[n]` nats, at most `−ln α` (arXiv 2402.03898)."""
    student, teacher = prepare(student, teacher)
    return kl(student, mix(teacher, student, 1 - alpha))


@DIVERGENCES.register("skew-fkl", needs=_TEACHER)
def skew_forward_kl(student: Tensor, teacher: Tensor, *, alpha: Skew = 0.1) -> Tensor:
    """`KL(T ‖ (1−α)π + αT)`, `[n]` nats, at most `−ln α` (arXiv 2402.03898)."""
    student, teacher = prepare(student, teacher)
    return kl(teacher, mix(teacher, student, alpha))


def _view(
    student: Tensor, teacher: Tensor, temperature: float, support: Support, k: int | None, tail: Tail
) -> tuple[Tensor, Tensor]:
    """Both sides as the settings want them compared."""
    student, teacher = prepare(student, teacher)
    return on_support(tempered(student, temperature), tempered(teacher, temperature), support, k, tail)
