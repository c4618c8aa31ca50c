"""From logits to a sampled token and its log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from agentdistill.policies.base import SamplingParams


def choose(
    logits: torch.Tensor, params: SamplingParams, uniforms: Sequence[float]
) -> tuple[list[int], list[float], list[float]]:
    """Sample one token a row by inverse CDF.

    Args:
        logits: `[n, V]` fp32.
        uniforms: `[n]` numbers in [0, 1), one a row, so that a row's token does not depend on its neighbours.

    Returns:
        ids, log-probs at the sampling temperature, log-probs at temperature 1 (nats; before top-k and top-p).
    """
    at_one = torch.log_softmax(logits, dim=-1)
    if params.temperature == 0:
        ids = logits.argmax(dim=-1)
        picked = at_one.gather(1, ids[:, None])[:, 0].tolist()
        return ids.tolist(), picked, picked
    tempered = at_one if params.temperature == 1 else torch.log_softmax(logits / params.temperature, dim=-1)
    probs = truncate(tempered.exp(), params.top_k, params.top_p)
    cumulative = probs.double().cumsum(dim=-1)
    target = torch.tensor(uniforms, dtype=torch.float64, device=logits.device) * cumulative[:, -1]
    ids = torch.searchsorted(cumulative, target[:, None], right=True).clamp_(max=logits.shape[-1] - 1)
    return ids[:, 0].tolist(), tempered.gather(1, ids)[:, 0].tolist(), at_one.gather(1, ids)[:, 0].tolist()


def truncate(probs: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Zero all but the `top_k` likeliest tokens (0: all), then all but the smallest set of mass at least `top_p`.

    The likeliest token always stays. Rows are not renormalised.
    """
    if 0 < top_k < probs.shape[-1]:
        kth = probs.topk(top_k, dim=-1).values[:, -1:]
        probs = torch.where(probs < kth, 0.0, probs)
    if top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True)
        total = ordered.sum(dim=-1, keepdim=True)
        before = ordered.cumsum(dim=-1) - ordered  # mass in front of each token
        kept = before < top_p * total
        kept[:, 0] = True  # where the product is rounded to 0
        probs = torch.where(kept, ordered, 0.0).gather(1, order.argsort(dim=-1))
    return probs
