"""Teachers and references made of the student's own weights: as they were, their moving average, or as they are."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from agentdistill.config import Experiment, TeacherSection
from agentdistill.engines.registry import judge
from agentdistill.engines.section import LOCAL
from agentdistill.policies.adapter import Adapted
from agentdistill.policies.model import CausalLM
from agentdistill.policies.served import can_be_served
from agentdistill.training.state import load_weights, save_weights

DECAY = 0.99
_FILE = "teacher.safetensors"


def frozen_copy(lm: CausalLM, name: str) -> CausalLM:
    """The same weights in memory of their own, without gradients."""
    model = copy.deepcopy(lm.model)
    model.requires_grad_(False)
    return CausalLM(model, lm.tokenizer, name)


def own_weights(student: CausalLM, kind: str) -> CausalLM:
    """The student as a teacher or a reference of itself.

    Args:
        kind: `live`: itself. `initial` and `ema`: as it is now, to stay so or to be averaged. With an adapter, its weights
            serve all of them: `initial` is the model without the adapter, `ema` the same one under another.
    """
    if kind == "live":
        return student
    if isinstance(student, Adapted):
        return student.without(kind) if kind == "initial" else student.twin(kind)
    return frozen_copy(student, kind)


@dataclass(frozen=True, slots=True)
class MovingAverage:
    """A teacher that follows the student: `ema ← decay·ema + (1−decay)·student` after every iteration, in fp32.

    One of OPSD's teachers (arXiv 2601.18734).
    """

    lm: CausalLM
    decay: float = DECAY

    @torch.no_grad()
    def update(self, student: CausalLM) -> None:
        """Take one iteration's weights in."""
        theirs = student.own()
        for name, mine in self.lm.own().items():
            if isinstance(mine, torch.nn.Parameter):
                mine.lerp_(theirs[name], 1 - self.decay)

    def save(self, folder: Path) -> None:
        """Write the average into an existing checkpoint folder."""
        save_weights(folder / _FILE, self.lm)

    def load(self, folder: Path) -> None:
        """Read back what `save` wrote.

        Raises:
            UserError: when the file is missing, damaged or of another model.
        """
        load_weights(folder / _FILE, self.lm)


def is_elsewhere(config: Experiment, section: TeacherSection) -> bool:
    """Whether the engine that scores for a teacher loads it by its name, so that no weights of it are in this process."""
    return judge(config.engine).name != LOCAL and section.sft is None and can_be_served(section.model)
