"""Segments among ranks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentdistill.cluster.deal import deal


@given(st.lists(st.integers(1, 500), max_size=40), st.integers(1, 6))
def test_every_segment_is_dealt_once_and_ranks_get_about_as_many_tokens(lengths: list[int], ranks: int) -> None:
    hands = deal(lengths, ranks)
    assert len(hands) == ranks
    assert sorted(i for hand in hands for i in hand) == list(range(len(lengths)))
    sizes = [len(hand) for hand in hands]
    assert max(sizes) - min(sizes) <= 1
    tokens = [sum(lengths[i] for i in hand) for hand in hands]
    assert max(tokens) - min(tokens) <= max(lengths, default=0)


def test_the_longest_go_there_and_back_again() -> None:
    assert deal([5, 50, 40, 30, 20, 10], 2) == [[1, 4, 5], [2, 3, 0]]
