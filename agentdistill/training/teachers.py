"""Teachers and references made of the student's own weights: as they were, their moving average, or as they are."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from agentdistill.policies.model import CausalLM
from agentdistill.training.state import load_weights, save_weights

DECAY = 0.99
_FILE = "teacher.safetensors"


def frozen_copy(lm: CausalLM, name: str) -> CausalLM:
    """The same weights in memory of their own, without gradients."""
    model = copy.deepcopy(lm.model)
    model.requires_grad_(False)
    return CausalLM(model, lm.tokenizer, name)


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
        for mine, theirs in zip(self.lm.model.parameters(), student.model.parameters(), strict=True):
            mine.lerp_(theirs, 1 - self.decay)

    def save(self, folder: Path) -> None:
        """Write the average into an existing checkpoint folder."""
        save_weights(folder / _FILE, self.lm)

    def load(self, folder: Path) -> None:
        """Read back what `save` wrote.

        Raises:
            UserError: when the file is missing, damaged or of another model.
        """
        load_weights(folder / _FILE, self.lm)
