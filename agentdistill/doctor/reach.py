"""Whether what the teacher says reaches the student's gradient."""

from __future__ import annotations

import math

import numpy as np

from agentdistill.doctor.base import Finding, check, fail, ok, skipped, warn
from agentdistill.doctor.patient import Patient
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.signals import Streams
from agentdistill.training.aside import Aside
from agentdistill.training.check import require_given
from agentdistill.training.health import require_signal
from agentdistill.training.score import Scored, score
from agentdistill.training.update import Totals, accumulate


@check("signal", "model", after=["engines", "tasks"])
def signal(patient: Patient) -> Finding:
    """On a few episodes, the gradient with the distillation term is another one than without it."""
    config, method, student = patient.experiment, patient.method, patient.student
    if (unasked := _unasked(patient)) is not None:
        return unasked
    sizes = []
    for role, named in patient.teachers.items():
        teacher = patient.scorer(role)
        require_given(method, "teacher", teacher)
        below = patient.reference
        reference = None if below is None else TransformersScorer(below, budget=config.train.token_budget)
        scored = score(
            student, teacher, patient.played, config.train.token_budget, config.train.old_logprobs, method.measures, reference
        )
        streams = method.apply(scored.table, 1)
        if not np.abs(streams.coef * streams.kd_weight).any():
            return warn("every weight of the distillation term is 0 on these episodes in iteration 1, so nothing can be told")
        size = _gradient(patient, scored, streams, named.name)
        if not size > 0:
            return fail(f"the gradient from {role} is {size}, so nothing would be learnt")
        sizes.append(f"{role}: gradient of norm {size:.2g}")
    return ok("; ".join(sizes))


def _unasked(patient: Patient) -> Finding | None:
    """Why no gradient is taken, where that is so."""
    method = patient.method
    if not method.distils:
        if method.exact or method.signal.name != "none":
            term = f"divergence '{method.divergence.name}'" if method.exact else f"signal '{method.signal.name}'"
            return fail(f"{term} is multiplied by method.kd_coef = 0, so the teacher is never heard; set it, or drop the term")
        return skipped("the method learns from rewards alone")
    if not patient.teachers:
        return skipped("there is no teacher in this process")
    held = [each.model in ("initial", "ema") and not each.privileged for each in patient.experiment.teacher_roles.values()]
    if any(held) and method.rewarded:
        return skipped("the teacher is the student as it is now, and a reward moves it later")
    return None


def _gradient(patient: Patient, scored: Scored, streams: Streams, teacher: str) -> float:
    """Norm of the whole gradient, once it is seen to be another one than without the distillation term; none is left over.

    Raises:
        UserError: when it is the same.
    """
    method, student, budget = patient.method, patient.student, patient.experiment.train.token_budget
    segments = range(len(scored.sequences))

    def backward(streams: Streams) -> Totals:
        return accumulate(student, method, scored, streams, streams.coef, segments, budget, "the doctor's step")

    aside = Aside([p for p in student.model.parameters() if p.requires_grad])
    try:
        if method.rewarded:
            backward(streams.silent)
            aside.take()
        backward(streams)
        require_signal(method, streams, streams.coef, math.sqrt(aside.difference()), teacher)
        return math.sqrt(aside.take())
    finally:
        student.model.zero_grad(set_to_none=True)
