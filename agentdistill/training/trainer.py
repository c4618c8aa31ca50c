"""Who changes the student's weights: this process, or others that it tells what to do (see `agentdistill.cluster`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from agentdistill.config import Experiment
from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM
from agentdistill.signals import Method, Streams
from agentdistill.training.aside import Aside
from agentdistill.training.optim import adamw, apply_step
from agentdistill.training.recompute import recomputing
from agentdistill.training.score import Scored
from agentdistill.training.sharded import is_sharded, load_sharded
from agentdistill.training.state import load_state, save_state
from agentdistill.training.update import Totals, accumulate
from agentdistill.trajectory import FloatArray


class Trainer(Protocol):
    """Gathers gradients over micro-batches and takes optimizer steps. After each step the student has the new weights."""

    def accumulate(
        self, method: Method, scored: Scored, streams: Streams, coef: FloatArray, segments: Sequence[int], where: str
    ) -> Totals:
        """Add the gradient of these segments' loss to what has gathered (see `update.accumulate`).

        Raises:
            UserError: when the loss is not finite; nothing has gathered then.
        """
        ...

    def set_aside(self) -> float:
        """Keep what has gathered until the next step, to be compared with, and begin anew; its norm."""
        ...

    def difference(self) -> float:
        """Norm of what has gathered less what was set aside, where something was."""
        ...

    def step(self, lr: float, where: str) -> float:
        """Clip, step, clear; the gradient norm before clipping.

        Raises:
            UserError: when the gradient is not finite; the weights are then untouched.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimizer state into an existing folder.

        Raises:
            OSError, RuntimeError, SafetensorError: when the disk refuses.
        """
        ...

    def load(self, folder: Path) -> None:
        """Read back what `save` wrote, this trainer's or another's.

        Raises:
            UserError: when it is missing, damaged or of another model.
        """
        ...

    def close(self) -> None:
        """Let go of whatever was held for the training."""
        ...


class TrainerLost(UserError):
    """What trained is lost, and can be had again: the run goes on from its last checkpoint."""


Opener = Callable[[CausalLM, Experiment], Trainer]
"""Makes the trainer of a student, once that is as it shall be trained."""


class LocalTrainer:
    """A `Trainer` in this process: it changes the student itself."""

    def __init__(self, student: CausalLM, config: Experiment) -> None:
        self._student, self._train = student, config.train
        self._optimizer = adamw(student.model, config.train.lr, config.train.betas, config.train.weight_decay)
        self._aside = Aside([p for p in student.model.parameters() if p.requires_grad])

    def accumulate(
        self, method: Method, scored: Scored, streams: Streams, coef: FloatArray, segments: Sequence[int], where: str
    ) -> Totals:
        """See `Trainer.accumulate`."""
        with recomputing(self._student.model, self._train.activation_checkpointing):
            return accumulate(self._student, method, scored, streams, coef, segments, self._train.token_budget, where)

    def set_aside(self) -> float:
        """See `Trainer.set_aside`."""
        return math.sqrt(self._aside.take())

    def difference(self) -> float:
        """See `Trainer.difference`."""
        return math.sqrt(self._aside.difference())

    def step(self, lr: float, where: str) -> float:
        """See `Trainer.step`."""
        self._aside.forget()
        return apply_step(self._optimizer, lr, self._train.grad_clip, where)

    def save(self, folder: Path) -> None:
        """See `Trainer.save`."""
        save_state(folder, self._student, self._optimizer)

    def load(self, folder: Path) -> None:
        """See `Trainer.load`."""
        (load_sharded if is_sharded(folder) else load_state)(folder, self._student, self._optimizer)

    def close(self) -> None:
        """Nothing is held."""
