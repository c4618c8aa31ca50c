"""Passes over sequences: how they fall into micro-batches, and how one of those is laid out.

A micro-batch is one row of tokens without padding (`policies.varlen`). Every episode of a batch starts with the same system
prompt and tools, and a group's episodes with the same task as well; such a beginning stands in the row once, with its gradient,
and every sequence's own part attends to its keys and values. The results are those of each sequence alone but for rounding. A
model that cannot take such rows gets padded ones, whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from agentdistill.policies.model import CausalLM, pad_right
from agentdistill.policies.varlen import row_mask, varlen
from agentdistill.trajectory import IntArray

LEAST = 128
"""Tokens that have to be saved in a pass; below, attending to them apart costs more than they do."""


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """How many ids all sequences begin with alike."""
    first, last = min(sequences), max(sequences)  # in dictionary order, all others lie between
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def pass_tokens(sequences: Sequence[list[int]], packed: bool = True) -> int:
    """Tokens that one pass over these sequences computes: theirs, and what they have in common once.

    Args:
        packed: whether they lie in one row (see `CausalLM.packed`); otherwise it is rows × the longest.
    """
    lengths = [len(each) for each in sequences]
    return _cost((len(lengths), max(lengths), sum(lengths), common_prefix(sequences) if packed else 0), packed)


def budget_batches(sequences: Sequence[list[int]], budget: int, packed: bool = True) -> list[list[int]]:
    """Indices of sequences grouped so that no group has more than `budget` tokens to compute, in a fixed order.

    Groups are cut from the order by length, which leaves the least padding, or from dictionary order, which puts together what
    has most in common: whichever is less in all, and of as many groups the more equal ones, which take less memory. A sequence
    longer than the budget gets a group of its own.

    Args:
        packed: whether a group is one row (see `CausalLM.packed`).
    """
    orders = (
        sorted(range(len(sequences)), key=lambda i: (-len(sequences[i]), i)),
        sorted(range(len(sequences)), key=lambda i: (sequences[i], i)),
    )
    cuts = [_cut(sequences, order, budget, packed) for order in (orders if packed else orders[:1])]
    cuts += [_even(sequences, groups, packed) for groups in cuts]

    def cost(groups: list[list[int]]) -> tuple[bool, int, int]:
        each = [(pass_tokens([sequences[i] for i in group], packed), len(group)) for group in groups]
        beyond = any(cost > budget and rows > 1 for cost, rows in each)
        return beyond, sum(cost for cost, _ in each), max((cost for cost, _ in each), default=0)

    return min(cuts, key=cost)


def computed(sequences: Sequence[list[int]], budget: int, packed: bool = True) -> int:
    """Tokens that all passes over these sequences compute, in batches of `budget_batches`."""
    groups = budget_batches(sequences, budget, packed)
    return sum(pass_tokens([sequences[i] for i in group], packed) for group in groups)


Shape = tuple[int, int, int, int]
"""Rows, their longest, all their tokens, and what they have in common."""


def _cost(shape: Shape, packed: bool) -> int:
    rows, longest, total, alike = shape
    if not packed:
        return rows * longest
    saved = alike * (rows - 1)
    return total - (saved if saved >= LEAST else 0)


def _even(sequences: Sequence[list[int]], groups: Sequence[Sequence[int]], packed: bool) -> list[list[int]]:
    """The same order in as many groups, of nearly as many tokens each, or rows where these are padded."""
    order, k = [i for group in groups for i in group], len(groups)
    sizes = np.array([len(sequences[i]) if packed else 1 for i in order], dtype=np.int64)
    middles = np.cumsum(sizes) - sizes / 2
    where = np.minimum(middles * k // max(1, int(sizes.sum())), k - 1)
    evened = [[i for i, at in zip(order, where, strict=True) if at == part] for part in range(k)]
    return [group for group in evened if group]


def _cut(sequences: Sequence[list[int]], order: Sequence[int], budget: int, packed: bool) -> list[list[int]]:
    """An order cut where the next sequence would be too much."""
    groups: list[list[int]] = []
    shape: Shape = (0, 0, 0, 0)
    for i in order:
        one = sequences[i]
        if groups:
            alike = common_prefix([sequences[groups[-1][0]][: shape[3]], one])
            wider = (shape[0] + 1, max(shape[1], len(one)), shape[2] + len(one), alike)
            if _cost(wider, packed) <= budget:
                groups[-1].append(i)
                shape = wider
                continue
        groups.append([i])
        shape = (1, len(one), len(one), len(one) if packed else 0)
    return groups


def states_at(lm: CausalLM, sequences: Sequence[list[int]], columns: Sequence[IntArray]) -> Tensor:
    """`[n, d]` last hidden states at `columns` of each sequence, one after another, differentiable where the model is.

    The model's layers run once, whatever the sequences are.

    Args:
        columns: positions in each sequence, ascending; `n` in all.
    """
    owner = np.repeat(np.arange(len(columns)), [len(each) for each in columns])
    column = np.concatenate([*columns, np.empty(0, np.int64)])
    if not lm.packed:
        hidden = lm.hidden(pad_right(sequences, lm.device), use_cache=False)
        return hidden[torch.as_tensor(owner, device=lm.device), torch.as_tensor(column, device=lm.device)]
    alike = common_prefix(sequences)
    if alike * (len(sequences) - 1) < LEAST:
        alike = 0
    own = [len(each) - alike for each in sequences]
    ids = torch.tensor([*sequences[0][:alike], *(token for each in sequences for token in each[alike:])])
    positions = torch.cat([torch.arange(alike), *(torch.arange(alike, alike + n) for n in own)])
    with varlen(lm.model):
        hidden = lm.hidden(
            ids.to(lm.device)[None], position_ids=positions.to(lm.device)[None], attention_mask=row_mask(alike, own),
            use_cache=False,
        )  # fmt: skip
    starts = alike + np.cumsum([0, *own[:-1]])
    at = np.where(column < alike, column, starts[owner] + column - alike)  # a state of the beginning is every sequence's
    return hidden[0, torch.as_tensor(at, device=lm.device)]
