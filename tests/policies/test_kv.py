"""The ragged cache by itself: what is written at each row's own positions is what is read."""

from __future__ import annotations

import pytest
import torch

from agentdistill.policies.kv import RaggedCache


def states(rows: int, new: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 2, new, 3, generator=torch.Generator().manual_seed(seed))


def write(cache: RaggedCache, rows: slice, starts: list[int], values: torch.Tensor, n_rows: int) -> torch.Tensor:
    positions = torch.tensor(starts)[:, None] + torch.arange(values.shape[2])
    cache.begin(rows, positions, max(starts) + values.shape[2], n_rows)
    return cache.update(values, -values, 0)[0]


def test_rows_of_different_lengths_keep_their_own_positions() -> None:
    cache, first, second = RaggedCache(), states(3, 4, 0), states(3, 2, 1)
    write(cache, slice(0, 3), [0, 0, 0], first, 3)
    read = write(cache, slice(0, 3), [4, 1, 2], second, 3)
    assert torch.equal(read[0], torch.cat([first[0], second[0]], 1))
    assert torch.equal(read[1, :, :3], torch.cat([first[1, :, :1], second[1]], 1))
    assert torch.equal(read[2, :, :4], torch.cat([first[2, :, :2], second[2]], 1))


def test_growing_past_a_block_keeps_what_was_there() -> None:
    cache, first, second = RaggedCache(), states(2, 60, 0), states(2, 30, 1)
    write(cache, slice(0, 2), [0, 0], first, 2)
    read = write(cache, slice(0, 2), [60, 60], second, 5)
    assert torch.equal(read, torch.cat([first, second], 2))


def test_a_long_episode_is_copied_a_few_times_and_no_room_is_left_for_more_than_a_quarter() -> None:
    cache, written, copied = RaggedCache(), [], 0
    for at in range(2_000):
        before = cache.keys[0].shape[2] if cache.keys else 0
        written.append(states(2, 1, at))
        read = write(cache, slice(0, 2), [at, at], written[-1], 2)
        after = cache.keys[0].shape[2]
        copied += before * (after != before)
        assert at < after <= 1.25 * at + 64
    assert copied < 5 * 2_000
    assert torch.equal(read, torch.cat(written, 2))


def test_positions_that_nobody_has_written_are_zero_whatever_the_memory_held() -> None:
    cache = RaggedCache()
    for length in (40, 90, 400):
        dirty = [torch.full((3, 2, room, 3), torch.nan) for room in (64, 128, 448) for _ in range(4)]
        del dirty
        write(cache, slice(1, 2), [length], states(1, 1, length), 3)
        for store in (cache.keys[0], cache.values[0]):
            assert not store.isnan().any()
            assert not store[0].any()
            assert not store[2].any()


def test_swapped_rows_change_places_and_a_pass_leaves_other_rows_alone() -> None:
    cache, first = RaggedCache(), states(3, 4, 0)
    write(cache, slice(0, 3), [0, 0, 0], first, 3)
    cache.swap(0, 2)
    write(cache, slice(1, 2), [4], states(1, 1, 1), 3)
    assert torch.equal(cache.keys[0][0, :, :4], first[2])
    assert torch.equal(cache.keys[0][2, :, :4], first[0])
    assert torch.equal(cache.values[0][0, :, :4], -first[2])
    assert torch.equal(cache.keys[0][1, :, :4], first[1])


@pytest.mark.parametrize("length", [5, 64, 128])
def test_a_copied_row_is_what_its_source_is_also_where_the_cache_is_full(length: int) -> None:
    cache, first = RaggedCache(), states(1, length, 0)
    write(cache, slice(0, 1), [0], first, 4)
    cache.copy(0, [1, 3], length)
    for row in (0, 1, 3):
        assert torch.equal(cache.keys[0][row, :, :length], first[0])
        assert torch.equal(cache.values[0][row, :, :length], -first[0])
    assert not cache.keys[0][2].any()
