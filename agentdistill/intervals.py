"""Success rates and mean scores with intervals that say how far the numbers can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from agentdistill.seeds import derive

Z = 1.959964  # the normal distribution's 97.5 % point
RESAMPLES = 10_000
FEW = 10  # tasks below which a bootstrap, which never leaves what was seen, is too narrow


@dataclass(frozen=True, slots=True)
class Rate:
    """A success rate over `n` episodes of `tasks` tasks, with its 95 % interval (see `clustered`)."""

    success: float
    low: float
    high: float
    n: int
    tasks: int

    def as_dict(self) -> dict[str, float | int]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        count = f"n={self.n}" if self.tasks == self.n else f"n={self.n} on {self.tasks} tasks"
        return f"{100 * self.success:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] ({count})"


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean, such as of rewards, over `n` episodes of `tasks` tasks, with its 95 % interval (see `average`).

    Bounds are infinite where nothing can be said of them.
    """

    mean: float
    low: float
    high: float
    n: int
    tasks: int

    def as_dict(self) -> dict[str, float | int | None]:
        """For JSON; a bound that is not known is null."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Mean:
        """What `as_dict` gave.

        Raises:
            KeyError: when it is not that.
        """
        unknown = {"mean": math.nan, "low": -math.inf, "high": math.inf}
        mean, low, high = (other if stored[name] is None else float(stored[name]) for name, other in unknown.items())
        return cls(mean, low, high, int(stored["n"]), int(stored["tasks"]))

    def __str__(self) -> str:
        known = math.isfinite(self.low) and math.isfinite(self.high)
        return f"{self.mean:.3f} " + (f"[{self.low:.3f}, {self.high:.3f}]" if known else "(too few tasks for an interval)")


def wilson(successes: int, n: int, z: float = Z) -> Rate:
    """Wilson's score interval (E. B. Wilson, JASA 1927) for `successes` out of `n` tasks played once; (0, 1) when n is 0."""
    if n == 0:
        return Rate(0.0, 0.0, 1.0, 0, 0)
    return Rate(successes / n, *_wilson(successes / n, n, z), n, n)


def clustered(outcomes: Sequence[Sequence[bool]]) -> Rate:
    """The interval of a rate whose episodes come in tasks, several of each: the tasks are a sample, not the episodes alone.

    Wilson's interval at an effective sample size instead of `n`: `n_eff = p(1−p)/v · (z/t)²`, with the variance between task
    means `v = Σ_i (k_i/k̄)² (p_i − p)² / (m(m−1))` of m tasks with k_i episodes each, and t the 97.5 % point of Student's
    distribution with m − 1 degrees of freedom (E. L. Korn and B. I. Graubard, Survey Methodology 1998; `n·v / p(1−p)` is
    Kish's design effect, and Wilson's form with it the one that C. Franco and others recommend, J. Survey Statistics and
    Methodology 2019). n_eff is kept between m (a task's episodes are all alike) and n (they are independent), and is m
    where the data cannot tell: all won, all lost, or one task.

    Args:
        outcomes: the successes of each task's episodes.
    """
    counts = [len(task) for task in outcomes if len(task)]
    wins = [sum(task) for task in outcomes if len(task)]
    n, m = sum(counts), len(counts)
    if n == m:
        return wilson(sum(wins), n)
    return Rate(sum(wins) / n, *_wilson(sum(wins) / n, min(_effective(wins, counts), n), Z), n, m)


def average(values: Sequence[Sequence[float]], seed: int = 0) -> Mean:
    """The mean of numbers that come in tasks, several of each, with its interval; tasks are the sample.

    Where all are 0 or 1, `clustered`'s interval. Where all lie in 0 … 1, Wilson's form at the effective sample size, as there:
    such numbers vary at most as much as successes do, and it holds what it says where a few tasks have all of the score, which
    a bootstrap does not (docs/compare.md). Otherwise percentiles of 10,000 means over tasks drawn anew, at the level whose
    normal quantile is `√(m/(m−1))·t`, since a resampled mean of m tasks varies too little by `√((m−1)/m)` (the expanded
    percentile interval: T. C. Hesterberg, The American Statistician 2015); below ten tasks Student's t instead.

    Args:
        values: the numbers of each task's episodes, finite.
        seed: of the resampling.
    """
    kept = [task for task in values if len(task)]
    counts, sums = [len(task) for task in kept], [math.fsum(task) for task in kept]
    n, m = sum(counts), len(counts)
    if n == 0:
        return Mean(math.nan, -math.inf, math.inf, 0, 0)
    low, high = min(min(task) for task in kept), max(max(task) for task in kept)
    mean = math.fsum(sums) / n
    if low >= 0 and high <= 1:
        if all(value in (0, 1) for task in kept for value in task):
            rate = clustered([[bool(value) for value in task] for task in kept])
            return Mean(rate.success, rate.low, rate.high, n, m)
        return Mean(mean, *_wilson(mean, _effective(sums, counts), Z), n, m)
    return Mean(mean, *resampled(sums, counts, seed), n, m)


def resampled(sums: Sequence[float], counts: Sequence[int], seed: int = 0) -> tuple[float, float]:
    """95 % interval of `Σ sums / Σ counts`, whose terms come a task each, by a bootstrap over tasks (see `average`).

    Infinite where tasks do not differ: nothing is known then of how far they could.
    """
    n, m = sum(counts), len(counts)
    mean, variance = math.fsum(sums) / n, _variance(sums, counts) if m > 1 else 0.0
    if variance <= 1e-24 * max(map(abs, sums)) ** 2:
        return -math.inf, math.inf
    if m < FEW:
        half = _student(m - 1) * math.sqrt(variance)
        return mean - half, mean + half
    level = 0.5 * math.erfc(math.sqrt(m / (m - 1)) * _student(m - 1) / math.sqrt(2))
    draws = np.random.default_rng(derive(seed, "average")).multinomial(m, np.full(m, 1 / m), RESAMPLES)
    low, high = np.quantile((draws @ np.array(sums)) / (draws @ np.array(counts)), [level, 1 - level])
    return float(low), float(high)


def _variance(sums: Sequence[float], counts: Sequence[int]) -> float:
    """Of the mean over all episodes, from how much the tasks' own differ: `Σ_i (k_i/k̄)² (p_i − p)² / (m(m−1))`."""
    n, m = sum(counts), len(counts)
    p = math.fsum(sums) / n
    return m / (m - 1) * math.fsum((total - k * p) ** 2 for total, k in zip(sums, counts, strict=True)) / n**2


def _effective(sums: Sequence[float], counts: Sequence[int]) -> float:
    """How many independent episodes say as much of a mean in 0 … 1 (see `clustered`); no fewer than there are tasks."""
    n, m = sum(counts), len(counts)
    p = math.fsum(sums) / n
    if not 0 < p < 1 or m == 1:
        return float(m)
    variance = _variance(sums, counts)
    return max(float(m), p * (1 - p) / variance * (Z / _student(m - 1)) ** 2) if variance > 1e-24 else float(n)


def across_seeds(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of a number that every seed gives once, and its 95 % interval by Student's t over seeds.

    Episodes of one seed share their models, so they say little of a method; with two or three seeds the interval is wide, and
    should be. The interval of a single seed is not known: (value, -inf, inf).
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return mean, -math.inf, math.inf
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = _student(n - 1) * math.sqrt(variance / n)
    return mean, mean - half, mean + half


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _student(df: int) -> float:
    """The 97.5 % point of Student's t: exact for 1 and 2, else by its expansion in 1/df, 1 % low at 3.

    Abramowitz and Stegun 1964, 26.7.5; the quantiles of 1 and 2 degrees of freedom have closed forms.
    """
    if df == 1:
        return math.tan(math.pi * 0.475)
    if df == 2:
        return 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
    z, out = Z, Z
    out += (z**3 + z) / (4 * df)
    out += (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    return out + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3)
