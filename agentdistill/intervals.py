"""Success rates with intervals that say how far the numbers can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

Z = 1.959964  # the normal distribution's 97.5 % point


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
    p = sum(wins) / n
    size = float(m)
    if 0 < p < 1 and m > 1:
        variance = m / (m - 1) * sum((won - k * p) ** 2 for won, k in zip(wins, counts, strict=True)) / n**2
        size = p * (1 - p) / variance * (Z / _student(m - 1)) ** 2 if variance else float(n)
    return Rate(p, *_wilson(p, min(max(size, m), n), Z), n, m)


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
