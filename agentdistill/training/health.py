"""Signal health: whether a method's terms reach the gradient, which tokens they come from, and how large each is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from agentdistill.errors import UserError
from agentdistill.rollout import Task
from agentdistill.signals import Method, Streams
from agentdistill.training.score import Scored
from agentdistill.trajectory import FloatArray

WEIGHT_BINS = (0.01, 0.1, 0.5)
SILENT_EVERY = 10
"""Iterations between two measurements of the gradient without the distillation term, where it is not 0 and so costs a pass."""
ROUNDING = 1e-5
"""Gradient norm a unit of coefficient below which a difference is taken for rounding; real signals give 1e-3 and more."""
AGREED = 1e-2
"""Nats a token, on average, below which student and teacher say the same."""


def agreement(scored: Scored) -> dict[str, Any]:
    """How far student and teacher are apart, in nats, over tokens that may carry loss, whether or not the method selects
    them, so that methods compare; by turn and step over all student tokens.
    """
    table, mask = scored.table, scored.table.mask
    ratio = np.where(mask, table["logprob"] - table["teacher"], 0.0)
    by_turn, count = table.mean_by_index("turn", scored.kl)
    return {
        "kl": _mean(scored.kl, mask),
        "log_ratio": _mean(ratio, mask),
        "log_ratio_abs": _mean(np.abs(ratio), mask),
        "kl_by_turn": by_turn.tolist(),
        "tokens_by_turn": count.tolist(),
        "kl_by_step": table.mean_by_index("step", scored.kl)[0].tolist(),
        "log_ratio_sum": float(table.sum_by_trajectory(ratio, mask).mean()),
        "log_ratio_sum_by_turn": _sum_by_turn(scored).tolist(),
    } | _by_teacher(scored)


def _sum_by_turn(scored: Scored) -> FloatArray:
    """`[turns]` the sum of `log π − log T` over a message's tokens, at turn 0, 1, 2 …: the mean over those who spoke then."""
    table, acts = scored.table, scored.table.is_action
    turn = table.turn[acts]
    total = np.bincount(turn, weights=(table["logprob"] - table["teacher"])[acts])
    spoke = np.unique(np.stack([table.trajectory[acts], turn]), axis=1)[1]
    count = np.bincount(spoke, minlength=len(total))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _by_teacher(scored: Scored) -> dict[str, Any]:
    """Where there are several teachers: the KL from each on the tokens that it scored, and its share of them."""
    table = scored.table
    theirs = {name: table.mask & ~np.isnan(table[name]) for name in table.names if name.startswith("teacher:")}
    if not theirs:
        return {}
    share = {name.removeprefix("teacher:"): float(mine.sum() / max(1, table.mask.sum())) for name, mine in theirs.items()}
    kl = {name.removeprefix("teacher:"): _mean(scored.kl, mine) for name, mine in theirs.items()}
    return {"kl_by_teacher": kl, "share_by_teacher": share}


def drift(scored: Scored) -> float:
    """How far the student is from who sampled the tokens: mean of `log π_sampler − log π` in nats, an estimate of their KL."""
    table = scored.table
    return _mean(table["sampler"] - table["recomputed"], table.mask)


def weighting(scored: Scored, streams: Streams) -> dict[str, Any]:
    """Step weights: by step, and the share of steps below each of `WEIGHT_BINS`, of the rest up to 1, and above 1."""
    weights = scored.table.mean_by_step(streams.step_weight)
    bins = np.searchsorted(WEIGHT_BINS, weights, side="right") + (weights > 1)
    shares = np.bincount(bins, minlength=len(WEIGHT_BINS) + 2) / max(1, len(weights))
    return {
        "weight_by_step": scored.table.mean_by_index("step", streams.step_weight)[0].tolist(),
        "weight_small_share": float(shares[0]),
        "weight_shares": shares.tolist(),
    }


def token_shares(scored: Scored, streams: Streams) -> dict[str, float]:
    """Shares of all the batch's tokens, each counted once: who is dropped first by what, and what is kept."""
    table = scored.table
    reasons = {
        "not_student": ~table.is_action, "depth": ~table.mask, "selection": ~streams.mask, "gate": streams.gate == 0,
    }  # fmt: skip
    left, out = np.ones(len(table), dtype=bool), {}
    for reason, dropped in reasons.items():
        out[reason] = float((left & dropped).mean())
        left = left & ~dropped
    return out | {"kept": float(left.mean())}


def terms(scored: Scored, streams: Streams, divergence: float) -> dict[str, float]:
    """Size of the distillation and of the reward term a token with loss, and how many trajectories the batch amounts to.

    Args:
        divergence: mean of `|kd_weight·D|` over them, where there is a divergence.
    """
    mask = streams.mask
    kd = np.abs(streams.distilled)
    share = scored.table.sum_by_trajectory(streams.coef * (streams.kd_weight if streams.kd_weight.any() else 1.0), mask)
    return {
        "advantage_abs": _mean(np.abs(streams.advantage), mask),
        "kd_abs": _mean(kd, mask) + divergence,
        "rl_abs": _mean(np.abs(streams.advantage - streams.distilled), mask),
        "effective_batch": float(share.sum() ** 2 / max(float((share**2).sum()), 1e-300)),
    }


def measures_silence(method: Method, iteration: int) -> bool:
    """Whether an iteration's first gradient is also taken without the distillation term."""
    return method.distils and (not method.rewarded or (iteration - 1) % SILENT_EVERY == 0)


def opening(tasks: Sequence[Task], scored: Scored) -> bool:
    """Whether a schedule shows some turns only, on which student and teacher say the same: the others may yet differ."""
    cut = any(task.max_turns is not None or task.prefix for task in tasks)
    table = scored.table
    return cut and "teacher" in table and _mean(np.abs(table["logprob"] - table["teacher"]), table.mask) < AGREED


def require_signal(method: Method, streams: Streams, coef: FloatArray, difference: float, teacher: str) -> None:
    """Refuse a distillation term that does not change the gradient.

    A term whose weights are all 0 on this batch (a gate that opens later) is no proof, and passes.

    Args:
        coef: `[n]` aggregation coefficients of this gradient.
        difference: norm of the gradient less the one without the term.
        teacher: its name, for the error.

    Raises:
        UserError: naming the signal or divergence.
    """
    size = float(np.abs(coef * streams.kd_weight).sum())
    if not size or difference > ROUNDING * size:
        return
    name = f"divergence '{method.divergence.name}'" if method.exact else f"signal '{method.signal.name}'"
    clip = method.divergence.params.get("clip")
    raise UserError(
        f"{name} has no effect: at iteration 1 the gradient with it differs by {difference:.1e} from that without, which is "
        f"rounding; either teacher '{teacher}' says nothing that the student does not (show one of the student's own weights "
        "more: teacher.privileged), or the method multiplies it by nothing"
        + (f", or its clip of {clip:g} nats holds every token" if clip is not None else "")
    )


def _mean(values: FloatArray, mask: Any) -> float:
    return float(values[mask].mean()) if mask.any() else math.nan
