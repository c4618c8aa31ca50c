"""Passes over sequences that begin alike: what they have in common goes through the model once.

Every episode of a batch starts with the same system prompt and tools, and a group's episodes with the same task as well. Under
causal attention the states of such a beginning do not depend on what follows, so it is computed as one row, with its gradient,
and every row's own part attends to its keys and values. The results are those of whole rows but for rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from agentdistill.policies.model import CausalLM, pad_right
from agentdistill.trajectory import IntArray

NAME = "agentdistill_shared"
LEAST = 128
"""Tokens that have to be saved in a pass; below, a second pass costs more than they do."""


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """How many ids all sequences begin with alike."""
    first, last = min(sequences), max(sequences)  # in dictionary order, all others lie between
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def pass_tokens(sequences: Sequence[list[int]], share: bool = True) -> int:
    """Tokens that one pass over these sequences computes: rows × the longest, and what they have in common once.

    Args:
        share: whether it is computed once.
    """
    longest = max(map(len, sequences))
    return _cost((len(sequences), longest, common_prefix(sequences) if share else 0))


def budget_batches(sequences: Sequence[list[int]], budget: int, share: bool = True) -> list[list[int]]:
    """Indices of sequences grouped so that no group has more than `budget` tokens to compute, in a fixed order.

    Groups are cut from the order by length, which leaves the least padding, or from dictionary order, which puts together what
    has most in common: whichever is less in all, and of as many groups the more equal ones, which take less memory. A sequence
    longer than the budget gets a group of its own.

    Args:
        share: whether what a group's sequences begin alike with is computed once (see `shares`).
    """
    orders = (
        sorted(range(len(sequences)), key=lambda i: (-len(sequences[i]), i)),
        sorted(range(len(sequences)), key=lambda i: (sequences[i], i)),
    )
    cuts = [_cut(sequences, order, budget, share) for order in (orders if share else orders[:1])]
    cuts += [_even(groups) for groups in cuts]

    def cost(groups: list[list[int]]) -> tuple[bool, int, int]:
        each = [(pass_tokens([sequences[i] for i in group], share), len(group)) for group in groups]
        beyond = any(cost > budget and rows > 1 for cost, rows in each)
        return beyond, sum(cost for cost, _ in each), max((cost for cost, _ in each), default=0)

    return min(cuts, key=cost)


def computed(sequences: Sequence[list[int]], budget: int, share: bool = True) -> int:
    """Tokens that all passes over these sequences compute, in batches of `budget_batches`."""
    groups = budget_batches(sequences, budget, share)
    return sum(pass_tokens([sequences[i] for i in group], share) for group in groups)


Shape = tuple[int, int, int]
"""Rows, their longest, and what they have in common."""


def _cost(shape: Shape) -> int:
    rows, longest, alike = shape
    saved = alike * (rows - 1)
    return rows * longest - (saved if saved >= LEAST else 0)


def _even(groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """The same order in as many groups, of nearly as many rows each."""
    order, k = [i for group in groups for i in group], len(groups)
    return [order[len(order) * part // k : len(order) * (part + 1) // k] for part in range(k)]


def _cut(sequences: Sequence[list[int]], order: Sequence[int], budget: int, share: bool) -> list[list[int]]:
    """An order cut where the next sequence would be too much."""
    groups: list[list[int]] = []
    shape: Shape = (0, 0, 0)
    for i in order:
        one = sequences[i]
        if groups:
            alike = common_prefix([sequences[groups[-1][0]][: shape[2]], one])
            wider = (shape[0] + 1, max(shape[1], len(one)), alike)
            if _cost(wider) <= budget:
                groups[-1].append(i)
                shape = wider
                continue
        groups.append([i])
        shape = (1, len(one), len(one) if share else 0)
    return groups


def states_at(lm: CausalLM, sequences: Sequence[list[int]], columns: Sequence[IntArray]) -> Tensor:
    """`[n, d]` last hidden states at `columns` of each sequence, row after row, differentiable where the model is.

    Args:
        columns: positions in each sequence, ascending; `n` in all.
    """
    owner = torch.as_tensor(np.repeat(np.arange(len(columns)), [len(each) for each in columns]), device=lm.device)
    column = torch.as_tensor(np.concatenate([*columns, np.empty(0, np.int64)]), device=lm.device)
    alike = min([common_prefix(sequences), *(int(each[0]) for each in columns if len(each))])
    if not shares(lm) or alike * (len(sequences) - 1) < LEAST or not len(column):
        return lm.hidden(pad_right(sequences, lm.device))[owner, column]
    cache = PrefixCache()
    with _shared(lm.model):
        lm.hidden(pad_right([sequences[0][:alike]], lm.device), past_key_values=cache, use_cache=True)
        ids = pad_right([each[alike:] for each in sequences], lm.device)
        positions = torch.arange(alike, alike + ids.shape[1], device=lm.device)[None]
        hidden = lm.hidden(ids, position_ids=positions, past_key_values=cache, use_cache=True)
    return hidden[owner, column - alike]


class PrefixCache(Cache):
    """The keys and values of one row, which a first pass leaves and every row of a second one reads before its own."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._known: list[tuple[Tensor, Tensor]] = []
        self._length = 0

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keep what the first pass gives `[1, heads, prefix, head_dim]`; put it before what the second one gives."""
        if layer_idx == len(self._known):
            self._known.append((key_states, value_states))
            self._length = key_states.shape[2]
            return key_states, value_states
        rows = len(key_states)
        known = (each.expand(rows, -1, -1, -1) for each in self._known[layer_idx])
        both = [torch.cat(pair, dim=2) for pair in zip(known, (key_states, value_states), strict=True)]
        return both[0], both[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of the first pass."""
        return self._length


def shared_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Causal attention of the last `new` positions of `span`, in the manner of Transformers' attention functions.

    PyTorch's kernels know causal attention of a square alone. Where most positions are new, the square is made whole with
    queries of zeros, whose results are dropped; it costs what whole rows cost. Otherwise a mask is less.

    Args:
        query: `[rows, heads, new, head_dim]`.
        key, value: `[rows, heads / group, span, head_dim]`.
        attention_mask: none; the shape says all.
    """
    new, span = query.shape[2], key.shape[2]
    before = span - new
    mask = None
    if before > new:
        mask = torch.ones(new, span, dtype=torch.bool, device=query.device).tril(before)[None, None]
    elif before:
        query = F.pad(query, (0, 0, before, 0))
    out, _ = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    return (out if mask is not None else out[:, before:]), None


def _no_mask(*_: Any, **__: Any) -> None:
    """What `shared_attention` is to be given."""


AttentionInterface.register(NAME, shared_attention)
AttentionMaskInterface.register(NAME, _no_mask)


def shares(lm: CausalLM) -> bool:
    """Whether passes of a model compute a common beginning once: those that attend by PyTorch's own attention."""
    return bool(lm.model.config._attn_implementation == "sdpa")


@contextlib.contextmanager
def _shared(model: PreTrainedModel) -> Iterator[None]:
    """A context in which a model attends by `shared_attention`."""
    config = model.config
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
