"""Attention against a cache, in which query heads share key-value heads without copies of those.

Where several query heads share one head of keys and values (grouped queries), Transformers repeats keys and values for every
query head before it calls PyTorch's attention with a mask. On a CPU PyTorch needs no such copies, and with a cache of a
thousand tokens a row they cost more than all weights together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "agentdistill_grouped"


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`[rows, new, heads, head_dim]`, in the manner of Transformers' attention functions.

    Args:
        query: `[rows, heads, new, head_dim]`.
        key, value: `[rows, heads / group, span, head_dim]`.
        attention_mask: `[rows, 1, new, span]`, true where a query sees a key; without one Transformers' own function is called.
    """
    rows, heads, new, width = query.shape
    groups = key.shape[1]
    if attention_mask is None or dropout or kwargs.get("position_bias") is not None:
        out: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out
    if new == 1:  # a group's queries are as many positions of one head
        grouped = query.view(rows, groups, heads // groups, width)
        seen = scaled_dot_product_attention(grouped, key, value, attention_mask, scale=scaling)
        return seen.reshape(rows, 1, heads, -1), None
    seen = scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling, enable_gqa=groups < heads)
    return seen.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, grouped_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextlib.contextmanager
def grouped(model: PreTrainedModel) -> Iterator[None]:
    """A context in which a model on a CPU attends by `grouped_attention`, where it would by PyTorch's attention."""
    config = model.config
    if config._attn_implementation != "sdpa" or model.device.type != "cpu":
        yield
        return
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
