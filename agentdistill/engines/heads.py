"""Attention heads of 16 as heads of 32: vLLM's CPU kernels take no smaller ones, and models from scratch have them."""

from __future__ import annotations

import math
from typing import Any

import torch

SMALL, LEAST = 16, 32


def widen_heads(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """The same Llama with every head padded by zeros from `SMALL` to `LEAST`; one of other heads is left alone.

    Dimension i of a head turns with dimension `i + SMALL/2` by the frequency `θ^(-2i/SMALL)`, which a head of twice the size
    gives its dimensions `2i` and `2i + SMALL`; so they go there. Scores are divided by the root of the new size; the
    queries make up for it.

    Args:
        config: of the model; changed in place.
        tensors: its weights by name, changed in place: `q_proj` and `k_proj` `[heads·SMALL, width]`, as `v_proj`, and `o_proj`
            `[width, heads·SMALL]`.
    """
    if config.get("model_type") != "llama" or config.get("head_dim") != SMALL:
        return
    pairs = torch.arange(SMALL // 2) * 2
    turned, plain = torch.cat([pairs, pairs + SMALL]), torch.arange(SMALL)
    for name, tensor in tensors.items():
        kind = name.split(".")[-2]
        if kind in ("q_proj", "k_proj"):
            scale = math.sqrt(LEAST / SMALL) if kind == "q_proj" else 1.0
            tensors[name] = _spread(tensor * scale, turned)
        elif kind == "v_proj":
            tensors[name] = _spread(tensor, plain)
        elif kind == "o_proj":
            tensors[name] = _spread(tensor.T, plain).T
    config["head_dim"] = LEAST


def _spread(tensor: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`[heads·LEAST, n]`: each head's `SMALL` rows at these places of its `LEAST`, zeros elsewhere."""
    heads = tensor.reshape(-1, SMALL, tensor.shape[1])
    wide = tensor.new_zeros(heads.shape[0], LEAST, heads.shape[2])
    wide[:, places] = heads
    return wide.flatten(0, 1)
