"""Bytes and seconds of an experiment, by what they are spent on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentdistill.config import OWN_WEIGHTS, Experiment
from agentdistill.cost.meters import Meter
from agentdistill.cost.shape import Shape, shape_of
from agentdistill.cost.work import Lengths, Work
from agentdistill.policies.model import CHUNK_ELEMENTS, CHUNK_ELEMENTS_GPU
from agentdistill.training.session import tiny_context

_WIDTH = 4  # bytes: weights, gradients, optimizer state and activations are fp32
_MOMENTS = 2  # that AdamW keeps of a weight
_CHUNKS = 5  # pieces of [positions × vocabulary] that a loss has at one time: logits, log-probs of both, slope, product
_SAMPLED = 28  # bytes a logit while a token is chosen: logits, two log-softmaxes, probabilities, and their sums in fp64
_PASSING = 3  # copies of the widest activation in a pass without gradients


@dataclass(frozen=True)
class Models:
    """Whose weights a run has in memory.

    Attributes:
        student: trained.
        scorers: frozen ones with weights of their own.
        asked: forward passes that score every episode; the student's own may be another (`Work.own_pass`).
    """

    student: Shape
    scorers: tuple[Shape, ...]
    asked: tuple[Shape, ...]


def models_of(config: Experiment) -> Models:
    """The models of an experiment.

    Raises:
        UserError: when one of them is not known here, and its name tells no size.
    """

    def shape(ref: str) -> Shape:
        return shape_of(ref, config.tokenizer_vocab, tiny_context(config))

    student = shape(config.student.model)
    stored = config.rollouts is not None and bool(config.rollouts.scorer)
    refs = [] if stored else [section.model for section in config.teacher_roles.values()]
    refs += [] if config.reference is None else [config.reference.model]
    asked = [student if ref in OWN_WEIGHTS else shape(ref) for ref in refs]
    held = [each for each, ref in zip(asked, refs, strict=True) if ref != "live"]
    return Models(student, tuple(held), tuple(asked))


def memory(config: Experiment, models: Models, work: Work, *, base: float, gpu: bool = False) -> dict[str, float]:
    """Bytes that one process needs, by what they hold; those of `PHASES` are not there at the same time.

    Args:
        base: what the process takes before any model is there.
        gpu: whether the chunks of logits are a GPU's.
    """
    student, trained = models.student, models.student.parameters
    if config.student.lora is not None:
        lora = config.student.lora
        trained = lora.r * sum(sum(each.shape) for each in student.model.parameters() if each.ndim == 2)
    kept = _WIDTH * student.parameters + _WIDTH * _MOMENTS * trained
    frozen = _WIDTH * sum(each.parameters for each in models.scorers)
    lengths = work.lengths
    batch = min(float(config.train.token_budget), work.passed)
    answers = _WIDTH * work.written * sum(each.width for each in models.asked)
    chunk = _WIDTH * (CHUNK_ELEMENTS_GPU if gpu else CHUNK_ELEMENTS)
    seen = [student, *models.asked]
    playing = _WIDTH * student.cached_numbers * work.episodes * math.ceil(lengths.context / 64) * 64
    playing += _SAMPLED * work.episodes * student.vocabulary
    passing = _PASSING * _WIDTH * batch * max(int(each.config.intermediate_size) for each in seen)
    scoring = passing + answers + _CHUNKS * chunk
    updating = _WIDTH * trained + _WIDTH * batch * student.saved_numbers + answers
    updating += _CHUNKS * min(chunk, _WIDTH * work.written * student.vocabulary)
    return {
        "process": base, "student and optimizer": kept, "teachers and references": frozen,
        "imitating": _imitating(config, models, lengths), "playing": playing, "scoring": scoring, "updating": updating,
    }  # fmt: skip


PHASES = ("imitating", "playing", "scoring", "updating")
"""Parts that are not there at the same time."""


def _imitating(config: Experiment, models: Models, lengths: Lengths) -> float:
    """Bytes of the supervised stage that needs most, beside the models' weights."""
    needed = [0.0]
    for section in (config.student, *config.teacher_roles.values()):
        if section.sft is not None:
            shape = next(each for each in (models.student, *models.scorers) if each.ref == section.model)
            trained = _WIDTH * (1 + _MOMENTS) * shape.parameters
            needed.append(trained + _WIDTH * section.sft.batch * lengths.read * shape.saved_numbers)
    return max(needed)


def peak(parts: dict[str, float]) -> float:
    """Bytes at the moment when most is needed."""
    return sum(n for name, n in parts.items() if name not in PHASES) + max(parts[name] for name in PHASES)


def seconds(models: Models, work: Work, meter: Meter) -> dict[str, float]:
    """Seconds of one iteration, by what they are spent on."""
    lengths, student = work.lengths, models.student
    length = lengths.context
    given = max(0.0, work.passed - work.written)
    # A turn lasts as long as the longest of its messages: between the mean one and an episode's longest.
    steps = (lengths.written + lengths.turns * lengths.longest) / 2
    decoding = steps * meter.decode(student, work.episodes, max(1, length // 2))
    reading = meter.score(student, given, length, 0.0) if given else 0.0
    asked: Sequence[Shape] = (*models.asked, student) if work.own_pass else models.asked
    return {
        "generate": decoding + reading,
        "environment": work.episodes * lengths.turns * lengths.environment,
        "score": sum(meter.score(each, work.passed, length, work.written) for each in asked),
        "update": work.student_passes * meter.train(student, work.passed, length, work.written),
    }


def evaluating(work: Work, taken: Mapping[str, float]) -> float:
    """Seconds of all evaluations of a run, whose episodes take as long as those of an iteration (`seconds`) do."""
    return work.evaluated / work.episodes * (taken["generate"] + taken["environment"])
