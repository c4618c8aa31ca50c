"""Which worker starts which episodes of a batch: shared out in blocks, and taken over by whoever is free sooner."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence

Start = tuple[int, object]  # a slot, and what names its task


class Deal:
    """Slots that start an episode, taken by workers a few at a time.

    What a reset costs differs from task to task (in ALFWorld from a tenth to half a second), and nobody knows it before. So a
    worker that is through with its own block takes slots from the end of the longest one. It takes an eighth of its share at
    most: everybody's steps wait for the worker with the most slots. Neighbours with one task, such as the rollouts of a group,
    go together, since what is loaded for one of them serves all.

    Args:
        starts: a start a slot.
        seats: number of workers.
    """

    def __init__(self, starts: Sequence[Start], seats: int) -> None:
        n = len(starts)
        blocks = [starts[-(-n * i // seats) : -(-n * (i + 1) // seats)] for i in range(seats)]
        self._blocks = [deque(_pieces(block)) for block in blocks]
        self._most = max(map(len, blocks)) * 9 // 8
        self._taken = [0] * seats

    def take(self, seat: int) -> list[int]:
        """The next slots for a worker that has nothing to do: fewer and fewer; none when there is nothing for it."""
        own, slots = self._blocks[seat], list[int]()
        while own and len(slots) < sum(map(len, own)) / 4:
            slots += own.popleft()
        if not slots:
            longest = max(self._blocks, key=len)
            if longest and self._taken[seat] + len(longest[-1]) <= self._most:
                slots = longest.pop()
        self._taken[seat] += len(slots)
        return slots


def _pieces(block: Sequence[Start]) -> list[list[int]]:
    """The block's slots, those of neighbours with one task together."""
    return [[slot for slot, _ in piece] for _, piece in itertools.groupby(block, key=lambda start: start[1])]
