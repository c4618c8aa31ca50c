"""One rank's work: a shard of the student, its optimizer, and micro-batches of the share that it is dealt.

It knows nothing of who calls it, a torchrun process or an actor. Every method is called on all ranks at once, since they work
together inside; what it raises as a `UserError` or `OSError` it raises on all of them, and they are ready for more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh

from agentdistill.cluster.parcel import Unpacker
from agentdistill.cluster.shard import fill, gather, shard, solid
from agentdistill.cluster.share import Share
from agentdistill.cluster.whole import load_whole
from agentdistill.errors import UserError
from agentdistill.modules import import_module
from agentdistill.policies import heap
from agentdistill.policies.model import CausalLM
from agentdistill.signals import Method
from agentdistill.training.aside import Aside
from agentdistill.training.head import ChunkLoss
from agentdistill.training.optim import adamw, apply_step
from agentdistill.training.recompute import recomputing
from agentdistill.training.sharded import is_sharded, load_sharded, save_sharded
from agentdistill.training.update import States, Totals, accumulate
from agentdistill.trajectory import FloatArray

DONE, MORE, REFUSED = range(3)


class Halted(UserError):
    """Another rank refused to go on; what it says is what matters."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a rank is made of.

    Attributes:
        lm: the student without its weights (see `shard.hollow`).
        method: as an experiment has it; what it names may come from `modules`.
        modules: to be imported first.
        budget: tokens of a micro-batch.
        recompute: whether layers are computed again in the backward pass.
        threads: of torch.
    """

    lm: CausalLM
    method: Any
    modules: tuple[str, ...]
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    grad_clip: float
    budget: int
    recompute: bool
    threads: int


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a share: its sums, and the student's columns at its rows where they were to be filled."""

    totals: Totals
    columns: dict[str, FloatArray]


class RankWorker:
    """A trainer rank. Its process has joined the group of all ranks (`torch.distributed`) before it is made.

    Args:
        device: where its shard is: `cpu`, or `cuda` for the process's current GPU.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._unpacker = Unpacker(self._device)

    def init(self, setup: Setup, weights: Mapping[str, Tensor] | None) -> None:
        """Take the student up.

        Args:
            weights: of the student by name, on rank 0; None on the others.

        Raises:
            UserError: when a module cannot be imported on one of them.
        """
        try:
            for module in setup.modules:
                import_module(module)
            self._setup, self._method = setup, Method.load(setup.method)
        except UserError:  # a file that is not on this machine, say
            self._agree(REFUSED)
            raise
        self._agree(DONE)
        torch.set_num_threads(setup.threads)
        if self._device.type == "cpu":
            heap.keep_freed()
        self._lm = solid(setup.lm)
        mesh = init_device_mesh(self._device.type, (distributed.get_world_size(),))
        self._pass = shard(self._lm, mesh)
        fill(self._lm, weights)
        self._lm.model.train(False)
        self._optimizer = adamw(self._lm.model, setup.lr, setup.betas, setup.weight_decay)
        self._aside = Aside([p for p in self._lm.model.parameters() if p.requires_grad])

    def accumulate(self, parcel: bytes) -> Report:
        """Add the gradient of a packed `Share` to what has gathered.

        Raises:
            UserError: when a loss is not finite; nothing has gathered then, on any rank. `Halted` where it was another's loss.
        """
        share: Share = self._unpacker.unpack(parcel)
        scored = share.scored(self._method)
        try:
            with recomputing(self._lm.model, self._setup.recompute):
                totals = accumulate(
                    self._lm, self._method, scored, share.streams, share.coef, range(len(share.segments)), self._setup.budget,
                    share.where, self._together,
                )  # fmt: skip
                while self._agree(DONE) == MORE:
                    self._pass(_one_token, _nothing).backward()
        except Halted:
            self._clear()
            raise
        except UserError:
            self._agree(REFUSED)
            self._clear()
            raise
        return Report(totals, {} if scored.student is None else scored.student.values)

    def set_aside(self) -> float:
        """See `Trainer.set_aside`."""
        return self._norm(self._aside.take())

    def difference(self) -> float:
        """See `Trainer.difference`."""
        return self._norm(self._aside.difference())

    def step(self, lr: float, where: str) -> float:
        """See `Trainer.step`."""
        self._aside.forget()
        try:
            return apply_step(self._optimizer, lr, self._setup.grad_clip, where)
        except UserError:
            self._clear()
            raise

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """What is trained, by name, whole; a tensor at a time, for each of which every rank is needed."""
        return gather(self._lm)

    def save(self, folder: str) -> None:
        """Write this rank's part of a checkpoint into a folder that all ranks see.

        Raises:
            OSError: when the disk refuses one of them.
        """
        save_sharded(Path(folder), self._lm, self._optimizer)

    def load(self, folder: str) -> None:
        """Read a checkpoint, of any number of ranks or of one process.

        Raises:
            UserError: when it is missing, damaged or of another model.
        """
        path = Path(folder)
        (load_sharded if is_sharded(path) else load_whole)(path, self._lm, self._optimizer)

    def close(self) -> None:
        """Let go of the student."""
        for name in ("_pass", "_lm", "_optimizer", "_aside"):
            if hasattr(self, name):
                delattr(self, name)

    def _together(self, lm: CausalLM, states: States, loss: ChunkLoss) -> None:
        """A micro-batch (see `update.Backward`), while every other rank has one too, or does as if."""
        self._agree(MORE)
        refused: list[UserError] = []

        def guarded(part: slice, logits: Tensor) -> Tensor:
            if not refused:
                try:
                    return loss(part, logits)
                except UserError as error:  # the others are waiting for this rank's part of the backward pass
                    refused.append(error)
            return _nothing(part, logits)

        self._pass(states, guarded).backward()
        if refused:
            raise refused[0]

    def _agree(self, state: int) -> int:
        """What the ranks do next: a micro-batch if any has one.

        Raises:
            Halted: when another rank refused the one before.
        """
        highest = torch.tensor(state)
        distributed.all_reduce(highest, distributed.ReduceOp.MAX)
        if int(highest) == REFUSED and state != REFUSED:
            raise Halted("another trainer rank refused to go on")
        return int(highest)

    def _norm(self, squares: float) -> float:
        total = torch.tensor(squares, dtype=torch.float64)
        distributed.all_reduce(total)
        return math.sqrt(float(total))

    def _clear(self) -> None:
        self._lm.model.zero_grad(set_to_none=True)


def _one_token(lm: CausalLM) -> Tensor:
    """The states of a rank that has no micro-batch left while another has one."""
    return lm.hidden(torch.zeros(1, 1, dtype=torch.long, device=lm.device))[0]


def _nothing(part: slice, logits: Tensor) -> Tensor:
    return (0.0 * logits).sum()


def worst(errors: Sequence[Exception]) -> Exception:
    """Of what ranks raised for the same call, the one that says why."""
    return next((each for each in errors if not isinstance(each, Halted)), errors[0])
