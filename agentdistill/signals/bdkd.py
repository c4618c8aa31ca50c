"""Balanced divergence: both KLs beside the cross-entropy of the stored tokens (BD-KD, arXiv 2212.12965)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from agentdistill.signals.logspace import entropy, kl, prepare, scaled
from agentdistill.signals.registry import DIVERGENCES

Factor = Annotated[float, Field(ge=0)]


@DIVERGENCES.register("bd-kd", needs=frozenset({"teacher", "distribution", "ids"}))
def balanced_kl(
    student: Tensor, teacher: Tensor, ids: Tensor, *,
    ce: Factor = 1.0, nu1: Factor = 1.0, nu2: Factor = 1.0, rule: Literal["fixed", "entropy-gap"] = "fixed",
) -> Tensor:  # fmt: skip
    """`ce·(−log π(a)) + ν₁·KL(T‖π) + ν₂·KL(π‖T)`, `[n]` nats.

    The cross-entropy is meant for demonstrations. On tokens that the student sampled itself its expected gradient is 0, so
    there it adds noise only: set `ce: 0`.

    Args:
        ids: `[n]` the tokens of the trajectory.
        ce: factor of the cross-entropy.
        nu1, nu2: factors of the forward and the reverse KL.
        rule: `fixed`, or `entropy-gap` (ours; the paper's rule is not published): where the student is the more certain
            of the two, the larger factor goes to the forward KL, which spreads it, and elsewhere to the reverse KL, which
            sharpens it. Detached.
    """
    student, teacher = prepare(student, teacher)
    forward, reverse = torch.full_like(teacher[..., 0], nu1), torch.full_like(teacher[..., 0], nu2)
    if rule == "entropy-gap":
        certain = entropy(student.detach()) < entropy(teacher)
        high, low = max(nu1, nu2), min(nu1, nu2)
        forward, reverse = torch.where(certain, high, low).to(forward), torch.where(certain, low, high).to(reverse)
    label = -student.gather(-1, ids[..., None])[..., 0]
    return scaled(ce, label) + scaled(forward, kl(teacher, student)) + scaled(reverse, kl(student, teacher))
