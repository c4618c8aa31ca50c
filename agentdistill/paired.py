"""Differences between two sides on the same tasks: their mean's interval, and the test of no difference at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agentdistill.intervals import RESAMPLES
from agentdistill.seeds import derive
from agentdistill.trajectory import FloatArray

EXACT = 5_000  # pairs up to which the binomial sum is exact in floats, and quick
_ENUMERATED = 14  # pairs up to which every assignment of signs is tried
MCNEMAR, ALL_SIGNS, SOME_SIGNS = "McNemar's exact test", "exact permutation of signs", "permutation of signs, 10,000 drawn"


def paired_interval(differences: FloatArray, scale: float = 1.0, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of differences between tasks, `[n]` → (low, high), by a smoothed bootstrap over tasks.

    Percentiles of 10,000 resampled means, with two tasks added to the sample that differ by ±√½ of `scale`: the bootstrap's
    form of adding half a task to each cell of the paired table (A. Agresti and Y. Min, Statistics in Medicine 2005). Without
    them a few tasks that hardly differ give intervals that are too short, or empty.

    Args:
        scale: how far two episodes can lie apart over how well a task's difference is known (see `compare`).
        seed: of the resampling.
    """
    sample = smoothed(differences, scale)
    values, counts = np.unique(sample, return_counts=True)  # few, where all are successes: then this is quick
    rng, n = np.random.default_rng(derive(seed, "compare")), len(sample)
    chunk = max(1, 2_000_000 // len(values))
    means = [rng.multinomial(n, counts / n, min(chunk, RESAMPLES - start)) @ values / n for start in range(0, RESAMPLES, chunk)]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def smoothed(differences: FloatArray, scale: float = 1.0) -> FloatArray:
    """`[n + 2]`: with the two tasks that `paired_interval` adds."""
    added = scale * math.sqrt(0.5)
    return np.append(differences, [added, -added])


def p_value(differences: FloatArray, seed: int = 0) -> float:
    """Two-sided p-value of differences whose signs are a matter of chance, `[n]`; `which_test` says by which test.

    McNemar's (Psychometrika 1947) is twice the binomial tail, 1 at most. Else signs are exchanged in every way, or drawn anew
    10,000 times, and then the observed one is counted among them.
    """
    live, test = differences[differences != 0], which_test(differences)
    if test == MCNEMAR:
        n, k = len(live), int(min((live > 0).sum(), (live < 0).sum()))
        log_tail = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)]
        return min(1.0, 2 * math.fsum(map(math.exp, log_tail)))
    observed = abs(live.sum()) - 1e-12 * np.abs(live).sum()  # sums in another order differ in the last bits
    if test == ALL_SIGNS:
        signs = 1.0 - 2.0 * (np.arange(2 ** len(live))[:, None] >> np.arange(len(live)) & 1)
        return float(np.mean(np.abs(signs @ live) >= observed))
    rng = np.random.default_rng(derive(seed, "signs"))
    beyond = sum(abs(float(rng.choice([-1.0, 1.0], len(live)) @ live)) >= observed for _ in range(RESAMPLES))
    return float(beyond + 1) / (RESAMPLES + 1)


def which_test(differences: FloatArray) -> str:
    """McNemar's where all that differ do so by one amount; else signs are permuted, all ways up to 14 of them."""
    live = np.abs(differences[differences != 0])
    if len(live) <= EXACT and (not len(live) or np.ptp(live) <= 1e-12 * live.max()):
        return MCNEMAR
    return ALL_SIGNS if len(live) <= _ENUMERATED else SOME_SIGNS


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons made at once, so adjusted that all of them together err in one case of twenty.

    Source: S. Holm, Scandinavian Journal of Statistics 1979.
    """
    out, floor, n = [1.0] * len(p_values), 0.0, len(p_values)
    for rank, index in enumerate(sorted(range(n), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (n - rank) * p_values[index]))
        out[index] = floor
    return out
