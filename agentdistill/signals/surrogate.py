"""The clipped policy-gradient surrogate (PPO, arXiv 1707.06347) with the dual clip (arXiv 1912.09729)."""

from __future__ import annotations

import torch
from torch import Tensor

from agentdistill.signals.logspace import MAX_LOG_RATIO


def ppo(
    logprob: Tensor,
    old_logprob: Tensor,
    advantage: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
) -> Tensor:
    """Per-token loss `max(−A·ρ, −A·clip(ρ, 1−clip_low, 1+clip_high))` with `ρ = π/π_old`.

    Where `A < 0` it is at most `−A·dual_clip`, so that a token whose probability exploded cannot rule the batch. The
    log-ratio is clamped to ±20 before `exp`.

    Args:
        logprob: `[n]` log π of the sampled tokens, differentiable; nats.
        old_logprob: `[n]` log π_old. Pass student tokens only: other rows hold NaN.
        advantage: `[n]`, detached.
        clip_low, clip_high: how far the ratio may fall below and rise above 1.
        dual_clip: greater than 1, or None to leave it out.

    Returns:
        `[n]` losses to be minimised.
    """
    advantage = advantage.detach()
    ratio = _ratio(logprob, old_logprob)
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip_low, 1 + clip_high))
    if dual_clip is None:
        return loss
    return torch.where(advantage < 0, torch.minimum(loss, -advantage * dual_clip), loss)


def clips(
    logprob: Tensor,
    old_logprob: Tensor,
    advantage: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
) -> Tensor:
    """`[3, n]` bool: where the lower, the upper and the dual clip stop the gradient of `ppo`; at most one does.

    The mean over student tokens of `any(0)` is the clip fraction.
    """
    ratio = _ratio(logprob.detach(), old_logprob)
    low = (advantage < 0) & (ratio < 1 - clip_low)
    high = (advantage > 0) & (ratio > 1 + clip_high)
    dual = (advantage < 0) & (ratio > dual_clip) if dual_clip is not None else torch.zeros_like(high)
    return torch.stack([low, high, dual])


def _ratio(logprob: Tensor, old_logprob: Tensor) -> Tensor:
    return (logprob - old_logprob.detach()).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
