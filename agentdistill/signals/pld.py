"""Plackett–Luce distillation: rank the ids as the teacher does, the sure places first (PLD, arXiv 2506.12542)."""

from __future__ import annotations

import math

from torch import Tensor

from agentdistill.signals.logspace import FLOOR, NEG_INF, prepare
from agentdistill.signals.registry import DIVERGENCES
from agentdistill.signals.support import Tail, TopK, cut


def _check(*, k: int | None, tail: Tail) -> None:
    """Refuse a ranking of one entry."""
    if k == 1 and tail == "renormalise":
        raise ValueError(
            "k = 1 with tail 'renormalise' leaves one id, which is no ranking; set tail to 'bucket', or k to 2 or more"
        )


@DIVERGENCES.register("pld", needs=frozenset({"teacher", "distribution"}), check=_check)
def plackett_luce(student: Tensor, teacher: Tensor, *, k: TopK = None, tail: Tail = "bucket") -> Tensor:
    """`Σ_i T(σ_i)·[log Σ_{j ≥ i} e^s(σ_j) − s(σ_i)]` with σ the teacher's order, `[n]` nats.

    The negative log-likelihood of that order under the student's logits `s`, each place weighted by the teacher's
    probability. Not a divergence: it is not 0 where the two agree, nor is its gradient.

    Args:
        k: places that are ranked, or None for the whole vocabulary (a sort of each row).
        tail: what the rest is. With `bucket` it stands last, as one entry, in every sum; with `renormalise` it is
            forgotten on both sides.
    """
    student, teacher = prepare(student, teacher)
    ids = teacher.topk(min(k or teacher.shape[-1], teacher.shape[-1]), -1).indices
    score, weight = cut(student, ids, tail), cut(teacher, ids, tail).exp()
    held = score.clamp(min=FLOOR)
    beaten = held.flip(-1).logcumsumexp(-1).flip(-1)
    never = (score == NEG_INF) & (beaten > FLOOR / 2) & (weight > 0)
    return (weight * (beaten - held).masked_fill(never, math.inf).masked_fill(weight == 0, 0.0)).sum(-1)
