"""Which worker starts which episodes: each once, in blocks, and what a slow worker leaves is taken over."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agentdistill.pool_deal import Deal


def dealt(deal: Deal, turns: list[int]) -> list[list[int]]:
    """What each worker has when they are free in this order, and then all of them until nothing is left."""
    seats = max(turns) + 1
    taken: list[list[int]] = [[] for _ in range(seats)]
    for seat in turns:
        taken[seat] += deal.take(seat)
    while True:
        last = {seat: deal.take(seat) for seat in range(seats)}
        for seat, slots in last.items():
            taken[seat] += slots
        if not any(last.values()):
            break
    return taken


@given(
    st.lists(st.integers(0, 3), max_size=60), st.integers(1, 5), st.lists(st.integers(0, 4), max_size=80)
)  # fmt: skip
def test_every_slot_is_dealt_once_whoever_is_free_first(tasks: list[int], seats: int, order: list[int]) -> None:
    deal = Deal(list(enumerate(tasks)), seats)
    taken = dealt(deal, [*(seat % seats for seat in order), seats - 1])
    assert Counter(slot for slots in taken for slot in slots) == Counter(range(len(tasks)))
    share = -(-len(tasks) // seats)
    assert max(map(len, taken)) <= share * 9 // 8


def test_workers_of_one_pace_keep_their_blocks_and_take_fewer_and_fewer() -> None:
    deal = Deal([(slot, slot) for slot in range(32)], 2)
    taken = [deal.take(turn % 2) for turn in range(16)]
    taken += [deal.take(turn % 2) for turn in range(4)]
    assert [len(slots) for slots in taken[::2]] == [4, 3, 2, 2, 1, 1, 1, 1, 1, 0]
    assert [slot for slots in taken[::2] for slot in slots] == list(range(16))


def test_a_worker_that_is_through_takes_over_an_eighth_from_the_end_of_another() -> None:
    deal = Deal([(slot, slot) for slot in range(32)], 2)
    fast = [slot for _ in range(20) for slot in deal.take(0)]
    assert fast == [*range(16), 31, 30]


def test_neighbours_with_one_task_go_together() -> None:
    deal = Deal([(slot, slot // 8) for slot in range(64)], 2)
    assert [deal.take(0) for _ in range(4)] == [list(range(8 * group, 8 * group + 8)) for group in range(4)]
    assert deal.take(0) == []  # another whole group would be more than an eighth


def test_one_group_is_shared_by_all_workers() -> None:
    deal = Deal([(slot, "task") for slot in range(8)], 2)
    assert [deal.take(seat) for seat in (0, 1, 0, 1)] == [[0, 1, 2, 3], [4, 5, 6, 7], [], []]
