"""The engines that the doctor can look at: how each makes the sampler and the teacher's scorer that a run would use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agentdistill.config import Experiment
from agentdistill.errors import UserError, nearest
from agentdistill.policies.base import Sampler, TeacherScorer
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer


@dataclass(frozen=True, slots=True)
class Backend:
    """What an `engine.kind` plays and scores with.

    Attributes:
        sampler: of a student whose weights are in this process; the doctor changes them between calls, as training does.
        scorer: of a teacher, who is in this process too, so that the two can be compared.
        refresh: called after the weights have changed, as training does after an update.
    """

    sampler: Callable[[Experiment, CausalLM], Sampler]
    scorer: Callable[[Experiment, CausalLM], TeacherScorer]
    refresh: Callable[[Sampler, CausalLM], None] = lambda sampler, lm: sampler.release()


BACKENDS: dict[str, Backend] = {
    "local": Backend(
        sampler=lambda config, lm: TransformersSampler(lm),
        scorer=lambda config, lm: TransformersScorer(lm, budget=config.train.token_budget),
    )
}
"""By `engine.kind`; another engine adds itself here when it is imported."""


def backend(config: Experiment) -> Backend:
    """The back end of an experiment's engine.

    Raises:
        UserError: when the engine has none.
    """
    kind = config.engine.kind
    if kind not in BACKENDS:
        raise UserError(f"engine '{kind}' has no checks of its own yet{nearest(kind, BACKENDS)}")
    return BACKENDS[kind]
