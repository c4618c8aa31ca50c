"""Whose weights a run has in memory, and whose passes score its episodes."""

from __future__ import annotations

from dataclasses import dataclass

from agentdistill.config import OWN_WEIGHTS, Experiment
from agentdistill.cost.shape import Shape, shape_of
from agentdistill.signals import Method
from agentdistill.training.check import REFERENCE
from agentdistill.training.session import tiny_context
from agentdistill.training.teachers import is_elsewhere


@dataclass(frozen=True, slots=True)
class Asked:
    """Who scores episodes.

    Attributes:
        shape: its model.
        told: whether its prompts are its own, with the plan in them.
        share: of the episodes; each teacher of a panel has its own ones.
        held: whether it has weights of its own.
        elsewhere: whether an engine loads it by its name, so that the process that runs the loop has none of it.
        here: whether it scores in the process that runs the loop, whoever scores for teachers.
    """

    shape: Shape
    told: bool = False
    share: float = 1.0
    held: bool = True
    elsewhere: bool = False
    here: bool = False


@dataclass(frozen=True, slots=True)
class Models:
    """The models of an experiment.

    Attributes:
        student: trained.
        trained: how many of its numbers are.
        asked: who scores; the student's own pass may be another (`Work.own_pass`).
    """

    student: Shape
    trained: int
    asked: tuple[Asked, ...]

    @property
    def shapes(self) -> dict[str, Shape]:
        """Each model by its reference."""
        return {each.ref: each for each in (self.student, *(asked.shape for asked in self.asked))}

    @property
    def lora(self) -> bool:
        """Whether an adapter is trained, and nothing else."""
        return self.trained < self.student.parameters


def models_of(config: Experiment) -> Models:
    """The models of an experiment.

    Raises:
        UserError: when one of them is not known here, and its name tells no size.
    """

    def shape(ref: str) -> Shape:
        return student if ref in OWN_WEIGHTS else shape_of(ref, config.tokenizer_vocab, tiny_context(config))

    student = shape_of(config.student.model, config.tokenizer_vocab, tiny_context(config))
    lora, teachers = config.student.lora, list(config.teacher_roles.values())
    own = () if lora is not None else ("initial", "ema")  # an adapter's weights serve all of them
    asked = []
    if config.rollouts is None or not config.rollouts.scorer:
        asked = [
            Asked(shape(each.model), each.privileged, 1 / len(teachers), each.model in own or not each.own,
                  not each.own and is_elsewhere(config, each), each.own)
            for each in teachers
        ]  # fmt: skip
    if config.reference is not None and Method.load(config.method).needs & REFERENCE:
        ref = config.reference.model
        asked.append(Asked(shape(ref), held=ref in own or ref not in OWN_WEIGHTS, here=True))
    trained = student.parameters
    if lora is not None:
        trained = lora.r * sum(sum(each.shape) for each in student.model.parameters() if each.ndim == 2)
    return Models(student, trained, tuple(asked))
