"""Losses on sampled tokens: what a divergence needs where a teacher gives log T of the tokens only.

Each takes log-probabilities of the sampled tokens, `[n]`, and returns `[n]` nats. What counts is the *gradient* that they
have in expectation over the student's own samples, which is not that of the divergence that they estimate:

    k1  log π − log T          estimates KL(π‖T), expected gradient 0
    k2  ½ (log π − log T)²                        expected gradient of KL(π‖T)
    k3  e^r − r − 1, r = log T − log π            expected gradient of KL(T‖π)
    abs |log π − log T|                           expected gradient of Σ |π − T|

On other samples (a demonstration, an old iteration's) none of this holds.

Source: Schulman, "Approximating KL divergence" (2020); the gradients are held by tests/signals/test_gradient_oracles.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from agentdistill.signals.logspace import MAX_LOG_RATIO, prepare
from agentdistill.signals.registry import DIVERGENCES

_TEACHER = frozenset({"teacher"})


@DIVERGENCES.register("k1", needs=_TEACHER)
def k1(logprob: Tensor, teacher: Tensor) -> Tensor:
    """`log π(a) − log T(a)`, `[n]`: the unbiased estimate of `KL(π‖T)`.

    As a loss it teaches nothing: its gradient `∇log π(a)` does not depend on the teacher and has mean 0. For the policy
    gradient of the reverse KL use the signal `opd`, or `k2`.
    """
    logprob, teacher = prepare(logprob, teacher)
    return logprob - teacher


@DIVERGENCES.register("k2", needs=_TEACHER)
def k2(logprob: Tensor, teacher: Tensor) -> Tensor:
    """`½ (log π(a) − log T(a))²`, `[n]`; expected gradient that of `KL(π‖T)`."""
    logprob, teacher = prepare(logprob, teacher)
    return 0.5 * (logprob - teacher) ** 2


@DIVERGENCES.register("k3", needs=_TEACHER)
def k3(logprob: Tensor, teacher: Tensor) -> Tensor:
    """`e^r − r − 1` with `r = log T(a) − log π(a)`, `[n]`, at least 0; expected gradient that of `KL(T‖π)`.

    Past `r = MAX_LOG_RATIO` the exponential goes on along its tangent: the ratio is bounded, and a student far below the
    teacher still gets a gradient, which a plain clamp of `r` would cut to 0.
    """
    logprob, teacher = prepare(logprob, teacher)
    r = teacher - logprob
    beyond = r > MAX_LOG_RATIO
    tangent = math.exp(MAX_LOG_RATIO) * (1 + r - MAX_LOG_RATIO)
    return torch.where(beyond, tangent, r.masked_fill(beyond, 0.0).exp()) - r - 1


@DIVERGENCES.register("abs", needs=_TEACHER)
def absolute(logprob: Tensor, teacher: Tensor) -> Tensor:
    """`|log π(a) − log T(a)|`, `[n]`; expected gradient twice that of the total variation. Bounded for every token."""
    logprob, teacher = prepare(logprob, teacher)
    return (logprob - teacher).abs()
