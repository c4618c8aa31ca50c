"""Advantage-guided distillation from a preference-tuned teacher (ADPA, arXiv 2502.17927)."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from agentdistill.signals.logspace import NEG_INF, finite, prepare
from agentdistill.signals.registry import DIVERGENCES


@DIVERGENCES.register("adpa", needs=frozenset({"teacher", "distribution", "reference-distribution"}))
def advantage_guided(
    student: Tensor, teacher: Tensor, reference: Tensor, *, anchor: Annotated[float, Field(ge=0)] = 0.0
) -> Tensor:
    """`−Σ_v π(v)·[log T(v) − log R(v)] + anchor·KL(π‖R)`, `[n]` nats, of either sign.

    `T` is the teacher after preference tuning and `R` the same model before, so the bracket is the advantage that the
    tuning found. Alone, as published beside a cross-entropy, the first term is linear in π: its minimum is all mass on the
    one id of largest advantage. The anchor holds it: the minimum is then `R·(T/R)^(1/anchor)`, normalised, and at 1 the
    value is `KL(π‖T)`.

    Where π puts mass on what T gives probability 0 the value is infinite. Where R alone gives 0 it is −inf below `anchor: 1`
    and +inf above. Where both do, nothing is known, and without an anchor nothing is added.
    """
    student, teacher = prepare(student, teacher)
    _, reference = prepare(student, reference)
    p = student.exp()
    value = (p * (anchor * finite(student) - finite(teacher) + (1 - anchor) * finite(reference))).sum(-1)
    no_teacher, no_reference = ((p > 0) & (side == NEG_INF) for side in (teacher, reference))
    if anchor != 1:
        value = value.masked_fill((no_reference & ~no_teacher).any(-1), math.copysign(math.inf, anchor - 1))
    barred = no_teacher if anchor else no_teacher & ~no_reference
    return value.masked_fill(barred.any(-1), math.inf)
