"""From logits to a sampled token and its log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from agentdistill.policies.base import SamplingParams

BLOCK = 256  # ids whose weights are summed at once


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
    ids = draw(probs, torch.tensor(uniforms, dtype=torch.float64, device=logits.device))[:, None]
    return ids[:, 0].tolist(), tempered.gather(1, ids)[:, 0].tolist(), at_one.gather(1, ids)[:, 0].tolist()


def draw(probs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """`[n]` the first id at which the cumulated weights exceed `uniforms · total`; one of weight 0 is never drawn.

    The block in which that happens is found first, from the blocks' sums, so only one block a row is cumulated. The sums are in
    float64: against cumulating the whole row, an id can differ only where both sides agree to about 15 digits.

    Args:
        probs: `[n, V]` weights of at least 0, at least one a row above 0.
        uniforms: `[n]` float64 in [0, 1).
    """
    n, width = probs.shape
    blocks = torch.nn.functional.pad(probs, (0, -width % BLOCK)).view(n, -1, BLOCK)
    ends = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    target = uniforms[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, target, right=True).clamp_(max=ends.shape[1] - 1)
    inside = blocks[torch.arange(n, device=probs.device), block[:, 0]].double().cumsum(dim=-1)
    rest = target - torch.where(block > 0, ends.gather(1, (block - 1).clamp_(min=0)), 0.0)
    place = torch.searchsorted(inside, rest, right=True)
    # Rounding may carry the target past the block's last weight; the id is then the last that has any.
    last = torch.searchsorted(inside, inside[:, -1:].contiguous())
    return (block * BLOCK + torch.minimum(place, last))[:, 0]


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
