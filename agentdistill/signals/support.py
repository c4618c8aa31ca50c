"""The part of the vocabulary that a divergence is taken over: all of it, or someone's k most likely ids.

What happens to the rest is explicit too: `renormalise` forgets it and scales both sides to 1 on the kept ids; `bucket`
keeps its mass as one further entry, so that mass cannot leave the support unseen.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from agentdistill.signals.logspace import NEG_INF, log_sum, normalise

Support = Literal["full", "student", "teacher"]
Tail = Literal["renormalise", "bucket"]
TopK = Annotated[int | None, Field(ge=1)]


def check_support(*, support: Support, k: int | None, tail: Tail, **_: Any) -> None:
    """Refuse a `k` that would be ignored, a support without its size, and one on which both sides are always the same.

    Raises:
        ValueError: then.
    """
    if support == "full" and k is not None:
        raise ValueError(f"k = {k} needs 'support' to say whose top-k, student or teacher; it is 'full'")
    if support != "full" and k is None:
        raise ValueError(f"support '{support}' needs 'k', the number of ids to keep")
    if k == 1 and tail == "renormalise":
        raise ValueError(
            "k = 1 with tail 'renormalise' leaves one id of probability 1 on both sides, so nothing is compared; set tail to "
            "'bucket', or k to 2 or more"
        )


def likeliest(*, support: Support, k: int | None, tail: Tail, temperature: float, **_: Any) -> int | None:
    """How many of the teacher's likeliest ids a divergence on a support reads; None: it reads them all.

    What is left in the bucket is known from the kept ids at temperature 1 only.
    """
    return k if support == "teacher" and (tail == "renormalise" or temperature == 1) else None


def on_support(student: Tensor, teacher: Tensor, support: Support, k: int | None, tail: Tail) -> tuple[Tensor, Tensor]:
    """Log-probs `[n, V]` of both on the support: `[n, k]`, or `[n, k + 1]` with the bucket last.

    With `k ≥ V` they come back as they are. Which ids are kept carries no gradient; the mass on them does. A side without
    any mass on the support is −inf throughout under `renormalise`.
    """
    if support == "full" or k is None or k >= student.shape[-1]:
        return student, teacher
    ids = (teacher if support == "teacher" else student).detach().topk(k, -1).indices
    return cut(student, ids, tail), cut(teacher, ids, tail)


def cut(logp: Tensor, ids: Tensor, tail: Tail) -> Tensor:
    """`logp` `[n, V]` on `ids` `[n, k]`, in their order, with the tail treated as told."""
    kept = logp.gather(-1, ids)
    if tail == "renormalise":
        return normalise(kept)
    return torch.cat([kept, log_sum(logp.scatter(-1, ids, NEG_INF))], -1)
