"""Which rank takes which segments."""

from __future__ import annotations

from collections.abc import Sequence


def deal(lengths: Sequence[int], ranks: int) -> list[list[int]]:
    """Indices for each rank: the longest first, there and back again, so that all get as many of about the same lengths.

    Micro-batches of a rank then hold rows of nearly one length, and ranks have nearly as many.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    hands: list[list[int]] = [[] for _ in range(ranks)]
    for place, i in enumerate(order):
        lap, at = divmod(place, ranks)
        hands[at if lap % 2 == 0 else ranks - 1 - at].append(i)
    return hands
