"""Trainer ranks as actors: a `trainer.Crew` of them, told by the driver what to do.

A rank that is lost leaves the others in the middle of a sum, so all of them go, and the run goes on from its last checkpoint
with new ones (`training.run.train`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
from ray.exceptions import RayError, RayTaskError
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from agentdistill.cluster.arrays import Array, array, tensor
from agentdistill.cluster.attempts import Attempts
from agentdistill.cluster.connect import ray
from agentdistill.cluster.group import Group
from agentdistill.cluster.placement import Place, Reservation
from agentdistill.cluster.worker import RankWorker, worst
from agentdistill.errors import UserError
from agentdistill.faults import described
from agentdistill.training.trainer import TrainerLost

_GRACE = 5.0
"""Seconds that the other ranks have to say that one is missing, and so are not taken for lost themselves."""


class RankHost:
    """What the actor is: a process that joins the group of all ranks, and its `RankWorker`.

    Args:
        rank: its own, of `world`.
        timeout: seconds that ranks at work wait for each other.
    """

    def __init__(self, rank: int, world: int, timeout: float) -> None:
        self._rank, self._world, self._timeout = rank, world, timeout

    def join(self, host: str, port: int) -> str:
        """Meet the others at the driver's store; the node that this is on."""
        store = TCPStore(host, port, timeout=timedelta(seconds=self._timeout))
        self._worker = RankWorker(Group(store, self._rank, self._world, self._timeout).device)
        node: str = ray.get_runtime_context().get_node_id()
        return node

    def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Call a method of the worker's."""
        return getattr(self._worker, method)(*arguments)

    def weights(self) -> dict[str, Array]:
        """What is trained, whole, from rank 0; nothing from the others, who are needed for it."""
        whole = self._worker.weights()
        if self._rank == 0:
            return {name: array(each) for name, each in whole}
        for _ in whole:
            pass
        return {}


class RankCrew:
    """A `trainer.Crew` over actors.

    Args:
        places: a rank each, in order.
        wait: seconds that they may take to be there.
        timeout: seconds that ranks wait for each other.
        patience: seconds that a call may take.

    Raises:
        UserError: when they cannot be started.
    """

    def __init__(
        self, places: Sequence[Place], reservation: Reservation, *, wait: float, timeout: float, patience: float
    ) -> None:
        self._places, self._reservation, self._timeout, self._patience = places, reservation, timeout, patience
        self.size, self.usable = len(places), False
        self._actors: list[Any] = []
        attempts = Attempts(reservation, wait)
        while not self.usable:
            try:
                self._nodes = self._started(attempts.left)
            except RayError as error:
                self.close()
                attempts.failed("a trainer rank", error)

    def _started(self, seconds: float) -> list[str]:
        """Start all of them, who meet at a store of their own; the nodes that they are on."""
        here, kind = ray.util.get_node_ip_address(), ray.remote(RankHost)
        self._store = TCPStore(here, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=self._timeout))
        self._actors = [
            kind.options(**self._reservation.options(place)).remote(rank, self.size, self._timeout)
            for rank, place in enumerate(self._places)
        ]
        nodes: list[str] = ray.get([actor.join.remote(here, self._store.port) for actor in self._actors], timeout=seconds)
        self.usable = True
        return nodes

    def call(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See `trainer.Crew`.

        Raises:
            TrainerLost: when a rank is lost.
        """
        return self._answers([actor.call.remote(method, each) for actor, each in zip(self._actors, arguments, strict=True)])

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """See `trainer.Crew`; raises as `call` does."""
        whole: dict[str, Array] = self._answers([actor.weights.remote() for actor in self._actors])[0]
        for name, numbers in whole.items():
            yield name, tensor(numbers)

    def close(self) -> None:
        """End every actor."""
        self.usable = False
        for actor in self._actors:
            if ray.is_initialized():
                ray.kill(actor, no_restart=True)
        self._actors = []

    def _answers(self, refs: Sequence[Any]) -> list[Any]:
        until, left = time.monotonic() + self._patience, list(refs)
        values: dict[int, Any] = {}
        refused: list[Exception] = []
        broken: dict[int, str] = {}
        while left and (seconds := until - time.monotonic()) > 0:
            ready, left = ray.wait(left, num_returns=1, timeout=seconds)
            for ref in ready:
                rank = refs.index(ref)
                try:
                    values[rank] = ray.get(ref)
                except RayTaskError as error:
                    cause = error.cause
                    if isinstance(cause, UserError | OSError):
                        refused.append(cause)
                    else:
                        broken.setdefault(rank, described(cause if isinstance(cause, Exception) else error))
                        until = min(until, time.monotonic() + _GRACE)
                except RayError:
                    broken[rank] = ""
                    until = min(until, time.monotonic() + _GRACE)
        if broken or left:
            raise self._lost(broken, [refs.index(ref) for ref in left])
        if refused:
            raise worst(refused)
        return [values[rank] for rank in range(self.size)]

    def _lost(self, broken: dict[int, str], silent: Sequence[int]) -> TrainerLost:
        """What is to be said: of ranks that are gone, else of those that say nothing, else of what one complains of."""
        self.usable = False
        gone = [rank for rank, why in broken.items() if not why] or list(silent)
        if not gone:
            rank, why = next(iter(broken.items()))
            return TrainerLost(f"trainer rank {rank} failed: {why}")
        alive = {node.id for node in self._reservation.nodes()}
        rank = gone[0]
        why = "its node is gone" if self._nodes[rank] not in alive else "its process ended" if broken.get(rank) == "" else (
            "it says nothing"
        )  # fmt: skip
        others = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
        return TrainerLost(f"trainer rank {rank} on {self._reservation.called(self._nodes[rank])} was lost: {why}{others}")
