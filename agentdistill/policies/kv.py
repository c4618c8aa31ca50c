"""A key-value cache for ragged batches: every row has its own length, and the live rows are always the first ones.

Transformers' own caches grow by concatenation and assume rows of one length (left-padded). Episodes are ragged: their
observations differ, and they end at different turns. Here a row's keys stand at its own positions from 0, new ones are
scattered to each row's end, and a row that leaves is swapped behind the live ones, so that attention reads a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache

_BLOCK = 64  # capacity is a number of blocks
_MORE = 4  # and grows by one part of so many at least: all that is ever copied is then a few times what there is at last


def room(span: int, held: int = 0) -> int:
    """Positions that a cache for `span` of them has room for, where it had room for `held`."""
    if span <= held:
        return held
    return -(-max(span, held + held // _MORE) // _BLOCK) * _BLOCK


class RaggedCache(Cache):
    """Keys and values `[rows, heads, capacity, head_dim]` a layer.

    Before a forward pass call `begin`, which fixes the rows and positions that `update` (called by each attention layer)
    writes to; afterwards `lengths` is up to the caller.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self._rows = slice(0, 0)
        self._index = torch.empty(0, 1, dtype=torch.long)
        self._positions = torch.empty(0, 0, dtype=torch.long)
        self._span = 0
        self._reserve = (0, 0)

    def begin(self, rows: slice, positions: torch.Tensor, span: int, n_rows: int) -> None:
        """Announce a forward pass over `rows` writing at `positions` `[len(rows), new]`, reading keys `[:span]`."""
        self._rows, self._positions, self._span = rows, positions, span
        self._index = torch.arange(rows.start, rows.stop, device=positions.device).unsqueeze(1)
        held = self.keys[0].shape[2] if self.keys else 0  # every pass grows all layers alike
        self._reserve = (n_rows, room(span, held))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write a layer's new keys and values `[rows, heads, new, head_dim]`; return all of these rows' up to the span."""
        if layer_idx == len(self.keys):
            self.keys.append(self._empty(key_states))
            self.values.append(self._empty(value_states))
        self.keys[layer_idx] = self._grown(self.keys[layer_idx])
        self.values[layer_idx] = self._grown(self.values[layer_idx])
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[self._index, :, self._positions] = key_states.transpose(1, 2)
        values[self._index, :, self._positions] = value_states.transpose(1, 2)
        return keys[self._rows, :, : self._span], values[self._rows, :, : self._span]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Longest span in use; the models ask for it only when they make their own mask, which they never do here."""
        return self._span

    def swap(self, a: int, b: int) -> None:
        """Exchange two rows in every layer."""
        if a == b:
            return
        pair, reverse = torch.tensor([a, b]), torch.tensor([b, a])
        for store in (*self.keys, *self.values):
            if max(a, b) < store.shape[0]:
                store[pair] = store[reverse]

    def copy(self, source: int, rows: Sequence[int], length: int) -> None:
        """Give other rows, which there is room for since the last pass, the first `length` positions of one."""
        for store in (*self.keys, *self.values):
            store[list(rows), :, :length] = store[source, :, :length].clone()  # torch refuses a view of all

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_zeros((0, like.shape[1], 0, like.shape[3]))

    def _grown(self, store: torch.Tensor) -> torch.Tensor:
        rows, capacity = max(self._reserve[0], store.shape[0]), max(self._reserve[1], store.shape[2])
        if (rows, capacity) == (store.shape[0], store.shape[2]):
            return store
        grown = store.new_empty((rows, store.shape[1], capacity, store.shape[3]))
        grown[: store.shape[0], :, : store.shape[2]] = store
        # Positions that no row has come to are masked, but nothing times not-a-number is not nothing.
        grown[: store.shape[0], :, store.shape[2] :] = 0
        grown[store.shape[0] :] = 0
        return grown
