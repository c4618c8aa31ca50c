"""What is exported: some batches of a store, a row group in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from agentdistill.store import Store
from agentdistill.trajectory import StopReason, Trajectory

GROUP = 128
"""Trajectories that are in memory at once."""


@dataclass(frozen=True, slots=True)
class Source:
    """Stored trajectories.

    Attributes:
        name: of the run.
        success_only: leave out those that were no success, and those whose environment failed.
    """

    name: str
    store: Store
    batches: Sequence[str]
    success_only: bool = False

    def __iter__(self) -> Iterator[tuple[str, Trajectory]]:
        """Batch and trajectory, in the order of the batches and of what was stored."""
        for batch in self.batches:
            for trajectory in self.store.trajectories(batch):
                failed = trajectory.stop_reason is StopReason.ENV_ERROR
                if not (self.success_only and (failed or not trajectory.success)):
                    yield batch, trajectory

    def groups(self) -> Iterator[list[tuple[str, Trajectory]]]:
        """The same, `GROUP` at a time."""
        rows = iter(self)
        while part := list(islice(rows, GROUP)):
            yield part

    def scorers(self) -> list[str]:
        """Everybody whose scores any of the batches may have, sorted."""
        found = set(self.store.scorers())
        for batch in self.batches:
            found |= self.store.named(batch)
        return sorted(found)
