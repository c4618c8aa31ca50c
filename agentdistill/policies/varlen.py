"""Attention over several sequences that lie in one row, one behind the other, each as if it were alone.

Position ids start anew at each sequence, and the row's attention mask says where the borders are. Each sequence is a causal
call of PyTorch's attention of its own, so no mask over the whole row exists, and attention costs what the sequences cost. What
all of them begin alike with may stand once, before them: under causal attention its states do not depend on what follows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "agentdistill_varlen"


def row_mask(alike: int, own: Sequence[int]) -> Tensor:
    """What a model is given as the mask of a row: `[1, 1, 1, 1 + sequences]` lengths, int64, on the CPU.

    Transformers hands a mask of four dimensions through to the attention as it is, also where a layer is computed again. Any
    other attention than ours refuses whole numbers.

    Args:
        alike: tokens of the common beginning, which come first; 0 where there is none.
        own: tokens of each sequence after it.
    """
    return torch.tensor([alike, *own])[None, None, None]


def varlen_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Causal attention within each sequence of a row, in the manner of Transformers' attention functions.

    Args:
        query: `[1, heads, total, head_dim]`.
        key, value: `[1, heads / group, total, head_dim]`.
        attention_mask: see `row_mask`; with any other one, rows are attended to as by PyTorch's attention.
    """
    if attention_mask is None or attention_mask.dtype != torch.int64:
        out: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return out
    lengths = attention_mask.flatten().tolist()
    if query.shape[2] != sum(lengths) or query.shape[2] != key.shape[2]:
        raise ValueError(f"a row of {lengths} tokens has {query.shape[2]} queries and {key.shape[2]} keys")
    queries, keys, values = (torch.split(each, lengths, dim=2) for each in (query, key, value))
    parts = [suffix_attention(module, queries[0], keys[0], values[0], **kwargs)] if lengths[0] else []
    for q, k, v in zip(queries[1:], keys[1:], values[1:], strict=True):
        if not q.shape[2]:  # a sequence that is all beginning
            continue
        span = (torch.cat([keys[0], k], dim=2), torch.cat([values[0], v], dim=2)) if lengths[0] else (k, v)
        parts.append(suffix_attention(module, q, *span, **kwargs))
    return torch.cat(parts, dim=1), None


def suffix_attention(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
    """`[rows, new, heads, head_dim]` causal attention of the last `new` positions of `span`.

    PyTorch's kernels know causal attention of a square alone. Where most positions are new, the square is made whole with
    queries of zeros, whose results are dropped; it costs what whole rows cost. Otherwise a mask is less.

    Args:
        query: `[rows, heads, new, head_dim]`.
        key, value: `[rows, heads / group, span, head_dim]`.
    """
    new, span = query.shape[2], key.shape[2]
    before = span - new
    mask = None
    if before > new:
        mask = torch.ones(new, span, dtype=torch.bool, device=query.device).tril(before)[None, None]
    elif before:
        query = F.pad(query, (0, 0, before, 0))
    out: Tensor = sdpa_attention_forward(module, query, key, value, mask, **kwargs)[0]
    return out if mask is not None else out[:, before:]


AttentionInterface.register(NAME, varlen_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextlib.contextmanager
def varlen(model: PreTrainedModel) -> Iterator[None]:
    """A context in which a model attends by `varlen_attention`, where it would by PyTorch's attention."""
    config = model.config
    used = config._attn_implementation
    config._attn_implementation = NAME if used == "sdpa" else used
    try:
        yield
    finally:
        config._attn_implementation = used


@torch.no_grad()
def takes_rows(model: PreTrainedModel, hidden: Callable[..., Tensor], vocabulary: int) -> bool:
    """Whether sequences in one row have the states in this model that they have alone; it is seen by trying.

    Two sequences behind their common beginning are held against themselves in rows of their own, what the first one says may
    not reach the second, and position ids have to be heeded. A model with other state than attention's, with positions that it
    counts itself, or with an attention of its own fails.

    Args:
        hidden: ids `[B, L]` and keyword arguments of the model's body → last hidden states `[B, L, d]`.
    """
    if model.config._attn_implementation != "sdpa":
        return False
    both = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 6, 7, 8]], device=model.device) % vocabulary
    ids, apart = torch.cat([both[0], both[1, 2:]]), hidden(both, use_cache=False)
    expected, largest = torch.cat([apart[0], apart[1, 2:]]), float(apart.abs().max())

    def row(first: int, start: int) -> Tensor:
        given = torch.cat([ids[:2], (ids[2:5] + first) % vocabulary, ids[5:]])
        positions = torch.tensor([[0, 1, 2, 3, 4, start, start + 1, start + 2]], device=model.device)
        return hidden(given[None], position_ids=positions, attention_mask=row_mask(2, (3, 3)), use_cache=False)[0]

    try:
        with varlen(model):
            found, changed, moved = row(0, 2), row(7, 2), row(0, 5)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):  # another model's way to say that it cannot
        return False
    right = float((found - expected).abs().max()) < 1e-3 * largest
    closed = float((changed - found)[5:].abs().max()) < 1e-5 * largest
    return right and closed and not torch.equal(moved[5:], found[5:])
