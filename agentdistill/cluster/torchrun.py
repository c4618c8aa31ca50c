"""Trainer ranks that `torchrun` has started: rank 0 runs the experiment, and the others wait for what it tells them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from agentdistill import child
from agentdistill.cluster.group import Group
from agentdistill.cluster.rank import Rank
from agentdistill.cluster.trainer import RankedTrainer
from agentdistill.cluster.worker import RankWorker, worst
from agentdistill.config import Experiment
from agentdistill.errors import UserError
from agentdistill.policies.model import CausalLM

IDLE = 10.0**6
"""Seconds that a rank waits for something to do: an evaluation may take hours, and a lost controller is noticed at once."""
_STOP, _WEIGHTS = "stop", "weights"
_TORCHRUN = "TORCHELASTIC_RUN_ID"  # set for what torchrun has started
_ATTEMPT = "TORCHELASTIC_RESTART_COUNT"
_AGENT = "TORCHELASTIC_USE_AGENT_STORE"  # "True" where torchrun itself is the store's server
_ANSWERS = (UserError, OSError)
"""What a call may raise on all ranks alike; anything else ends the process."""


@dataclass(frozen=True, slots=True)
class _Reply:
    value: Any = None
    error: Exception | None = None


class Ranks:
    """This process as one of torchrun's ranks.

    Args:
        timeout: seconds that ranks at work wait for each other.
    """

    def __init__(self, rank: Rank, timeout: float) -> None:
        self.rank, self.size = rank, rank.world
        try:
            store, number, world = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
            attempt = os.environ.get(_ATTEMPT, "0")  # torchrun keeps its store when it starts the ranks again
            store = PrefixStore(f"attempt-{attempt}", store)
            self._group = Group(store, number, world, timeout, rank.local)
        except RuntimeError as error:
            raise UserError(
                f"trainer rank {rank.number} did not meet all of the {rank.world} ranks within {timeout:g} seconds "
                f"({' '.join(str(error).split())[:120]}); start them together, by torchrun"
            ) from error
        waits = timeout if number == 0 else IDLE
        self._orders = distributed.new_group(backend="gloo", timeout=timedelta(seconds=waits))
        self.device = self._group.device
        self._worker = RankWorker(self.device)
        self.usable = True

    @property
    def controls(self) -> bool:
        """Whether this is rank 0."""
        return self.rank.number == 0

    def gone(self) -> list[int]:
        """See `Group.gone`."""
        return self._group.gone()

    def trainer(self, student: CausalLM, config: Experiment) -> RankedTrainer:
        """A `trainer.Opener`, on rank 0."""
        return RankedTrainer(self, student, config)

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `Crew.call`."""
        with self._guarded():
            self._order([(method, each) for each in arguments])
            mine = _answer(self._worker, method, arguments[0])
            replies: list[Any] = [None] * self.size
            distributed.gather_object(mine, replies)
        if errors := [reply.error for reply in replies if reply.error is not None]:
            raise worst(errors)
        return [reply.value for reply in replies]

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """See `Crew.weights`."""
        with self._guarded():
            self._order([(_WEIGHTS, ())] * self.size)
            yield from self._worker.weights()

    def serve(self) -> int:
        """Do what rank 0 says until it says stop, on any other rank; the exit code."""
        told: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):  # which a terminal, or torchrun, sends to all: rank 0 sends the others
            signal.signal(number, lambda number, _: told.append(number))  # home, and would take one that went before for lost
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        try:
            while True:
                order: list[Any] = [None]
                distributed.scatter_object_list(order, group=self._orders)
                method, arguments = order[0]
                if method == _STOP:
                    return int(arguments[0])
                if method == _WEIGHTS:
                    for _ in self._worker.weights():
                        pass
                else:
                    distributed.gather_object(_answer(self._worker, method, arguments))
        except KeyboardInterrupt:  # rank 0's, in the middle of a checkpoint
            return 1
        except RuntimeError as error:
            if not _broken(error):
                raise
            if not told and 0 in self._group.lost():
                self._say("is lost")
            return 1

    def close(self, failed: bool) -> None:
        """Send the other ranks home, on rank 0, and leave.

        Args:
            failed: whether they shall say so too.
        """
        if self.usable and self.controls:
            with suppress(UserError), self._guarded():  # one that is lost by now was not needed any more
                self._order([(_STOP, (int(failed),))] * self.size)
        self._group.leave()

    def _watch(self) -> None:
        """End this process once rank 0 stands still: what waits for its orders cannot be told to stop."""
        if self._group.deserted(serves=os.environ.get(_AGENT) != "True"):
            self._say("stands still")
            os._exit(1)

    def _say(self, what: str) -> None:
        who = f"agentdistill: trainer rank {self.rank.number}"
        print(f"{who}: rank 0, which ran the experiment, {what}", file=sys.stderr, flush=True)

    def _order(self, orders: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        mine: list[Any] = [None]
        distributed.scatter_object_list(mine, [None, *orders[1:]], group=self._orders)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """What ranks do together: whoever leaves it by an error leaves the others in the middle, so nothing follows it."""
        usable, self.usable = self.usable, False
        try:
            yield
            self.usable = usable
        except (RuntimeError, KeyboardInterrupt) as error:
            if not isinstance(error, KeyboardInterrupt) and not _broken(error):
                raise
            lost = self._group.lost()
            if not lost and isinstance(error, KeyboardInterrupt):
                raise
            raise UserError(_said(lost, error)) from error


@contextmanager
def joined(config: Experiment) -> Iterator[Ranks | None]:
    """The ranks of torchrun, where this process is one of them; None where it is not."""
    rank = Rank.here()
    if rank is None:
        yield None
        return
    if _TORCHRUN in os.environ:
        child.end_with(os.getppid())  # a torchrun that is killed cannot end its ranks, and nobody would know of them
    ranks = Ranks(rank, config.train.rank_timeout)
    try:
        yield ranks
    except KeyboardInterrupt as error:
        gone = ranks.gone()  # whose end may be why torchrun stops this one
        ranks.close(failed=True)
        if gone:
            raise UserError(_said(gone, error)) from error
        raise
    except BaseException:
        ranks.close(failed=True)
        raise
    ranks.close(failed=False)


def _broken(error: Exception) -> bool:
    """Whether an error is of the ties between ranks, and not of this one's own work."""
    return isinstance(error, distributed.DistError) or any(word in str(error) for word in ("gloo", "Gloo", "NCCL"))


def _said(lost: Sequence[int], error: BaseException) -> str:
    if not lost:
        reason = " ".join(str(error).split())[:200]
        return f"trainer ranks lost touch with each other ({reason}); go on from the last checkpoint with --resume"
    names = " and ".join(map(str, lost))
    which = f"trainer rank {names} is" if len(lost) == 1 else f"trainer ranks {names} are"
    return f"{which} lost (killed, out of memory, or standing still); go on from the last checkpoint with --resume"


def _answer(worker: RankWorker, method: str, arguments: tuple[Any, ...]) -> _Reply:
    try:
        return _Reply(getattr(worker, method)(*arguments))
    except _ANSWERS as error:
        return _Reply(error=error)
