"""A `Trainer` whose work several ranks do. Who they are and how they are reached is their crew's affair."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from agentdistill.cluster.deal import deal
from agentdistill.cluster.parcel import Packer
from agentdistill.cluster.shard import hollow
from agentdistill.cluster.share import cut
from agentdistill.cluster.worker import Report, Setup
from agentdistill.config import Experiment
from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM
from agentdistill.signals import Method, Streams
from agentdistill.training.score import Scored
from agentdistill.training.update import Totals
from agentdistill.trajectory import FloatArray


class Crew(Protocol):
    """A `RankWorker` on every rank."""

    size: int
    usable: bool
    """Whether all ranks are there, and wait for a call."""

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method on all ranks at once, each with its arguments; what they return, in order.

        Raises:
            UserError, OSError: what the method raised (see `worker.worst`); the ranks are ready for more.
            UserError: naming the rank that is lost; the crew is of no use then.
        """
        ...

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What rank 0's `RankWorker.weights` gives; it has to be read to its end."""
        ...


class RankedTrainer:
    """A `Trainer` over a crew. The student of this process is brought up to date after each step.

    Args:
        student: as it shall be trained.
    """

    def __init__(self, crew: Crew, student: CausalLM, config: Experiment) -> None:
        self._crew, self._student = crew, student
        self._packers = [Packer() for _ in range(crew.size)]
        self._trained = {name: p for name, p in student.model.named_parameters() if p.requires_grad}
        train = config.train
        setup = Setup(
            hollow(student), config.method, (config.env.module,) if config.env.module else (), train.lr, train.betas,
            train.weight_decay, train.grad_clip, train.token_budget, train.activation_checkpointing, torch.get_num_threads(),
        )  # fmt: skip
        weights = {name: p.detach() for name, p in student.model.named_parameters()}
        crew.call("init", [(setup, weights if rank == 0 else None) for rank in range(crew.size)])

    def accumulate(
        self, method: Method, scored: Scored, streams: Streams, coef: FloatArray, segments: Sequence[int], where: str
    ) -> Totals:
        """See `Trainer.accumulate`; the method is the experiment's."""
        chosen = [i for i in segments if np.any(coef[scored.sequences[i].rows] > 0)]
        hands = deal([len(scored.sequences[i].ids) for i in chosen], self._crew.size)
        shares = [cut(method, scored, streams, coef, [chosen[i] for i in hand], where) for hand in hands]
        parcels = [(packer.pack(share),) for packer, share in zip(self._packers, shares, strict=True)]
        reports: list[Report] = self._crew.call("accumulate", parcels)
        totals = Totals()
        for share, report in zip(shares, reports, strict=True):
            totals.add(report.totals)
            if scored.student is not None and report.columns:
                scored.student.put(share.rows, report.columns)
        return totals

    def set_aside(self) -> float:
        """See `Trainer.set_aside`."""
        return float(self._all("set_aside"))

    def difference(self) -> float:
        """See `Trainer.difference`."""
        return float(self._all("difference"))

    def step(self, lr: float, where: str) -> float:
        """See `Trainer.step`."""
        norm = float(self._all("step", lr, where))
        self._take()
        return norm

    def save(self, folder: Path) -> None:
        """See `Trainer.save`; all ranks write into the folder."""
        self._all("save", str(folder.resolve()))

    def load(self, folder: Path) -> None:
        """See `Trainer.load`."""
        self._all("load", str(folder.resolve()))
        self._take()

    def close(self) -> None:
        """Have the ranks let go of the student; the crew stays."""
        if self._crew.usable:
            with contextlib.suppress(UserError):  # a rank that is lost by now has let go of it too
                self._all("close")

    def _all(self, method: str, *arguments: Any) -> Any:
        """Call every rank with the same; what rank 0 says."""
        return self._crew.call(method, [arguments] * self._crew.size)[0]

    @torch.no_grad()
    def _take(self) -> None:
        """Write the ranks' weights into the student of this process; torch counts it, and that is how samplers notice."""
        for name, whole in self._crew.weights():
            self._trained[name].copy_(whole)
