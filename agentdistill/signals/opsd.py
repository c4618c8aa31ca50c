"""OPSD's losses: a divergence from a teacher with privileged context, clipped (arXiv 2601.18734).

The privileged context is the teacher's business (`teacher.privileged`); what is here is the clip, which keeps a few tokens
of style from ruling the batch. Where it is applied decides what is learnt, so the two ways have two names.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from agentdistill.signals.divergence import forward_kl, jensen_shannon
from agentdistill.signals.logspace import Temperature, kl_terms, mix, prepare, tempered
from agentdistill.signals.registry import DIVERGENCES

_TEACHER = frozenset({"teacher", "distribution"})

Kind = Literal["fkl", "jsd"]
Beta = Annotated[float, Field(gt=0, lt=1)]


@DIVERGENCES.register("opsd", needs=_TEACHER)
def token_clipped(
    student: Tensor, teacher: Tensor, *,
    divergence: Kind = "fkl", beta: Beta = 0.5, temperature: Temperature = 1.0,
    clip: Annotated[float | None, Field(gt=0)] = None,
) -> Tensor:  # fmt: skip
    """`min(D_t, clip)`, `[n]` nats: the clip comes after the sum over the vocabulary.

    A token under `clip` has the whole gradient of its divergence and one above it none, so no gradient changes direction.

    Args:
        divergence: the forward KL, or the JSD with `beta`.
        clip: nats, or None for no clip.
    """
    if divergence == "fkl":
        value = forward_kl(student, teacher, temperature=temperature)
    else:
        value = jensen_shannon(student, teacher, beta=beta, temperature=temperature)
    return value if clip is None else value.clamp(max=clip)


@DIVERGENCES.register("opsd-element-clip", needs=_TEACHER)
def element_clipped(
    student: Tensor, teacher: Tensor, *,
    divergence: Kind = "fkl", beta: Beta = 0.5, temperature: Temperature = 1.0,
    clip: Annotated[float, Field(gt=0)] = 0.05,
) -> Tensor:  # fmt: skip
    """`Σ_v min(d_v, clip)`, `[n]` nats, for fidelity to published runs only; it can be negative and is no divergence.

    The summands above `clip` are those of ids that the teacher wants more of. Their gradient is cut and that of the others
    stays, so for small clips the student is taught to leave what the teacher prefers. Use `opsd` instead.

    Args:
        clip: nats an element.
    """
    student, teacher = prepare(student, teacher)
    student, teacher = tempered(student, temperature), tempered(teacher, temperature)
    if divergence == "fkl":
        terms = kl_terms(teacher, student)
    else:
        mixture = mix(teacher, student, beta)
        terms = beta * kl_terms(teacher, mixture) + (1 - beta) * kl_terms(student, mixture)
    return terms.clamp(max=clip).sum(-1)
