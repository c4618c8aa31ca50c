"""How often 95 % intervals hold the truth: success, score and paired differences, over designs of which the truth is known.

Each design is an experiment drawn anew `--trials` times: tasks whose own chances or means differ, some episodes of each.
Printed are the share of intervals that held the truth, the shares that lay above and below it, and the mean width. The last
line is one JSON object. With 1,000 trials a share of 95 % has a standard error of 0.7 points.

    python benchmarks/coverage.py [--trials 1000] [--only success|score|paired]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy import stats

from agentdistill import intervals, paired
from agentdistill.intervals import average, clustered, resampled
from agentdistill.paired import paired_interval

TASKS, SAMPLES = (6, 10, 20, 50, 200), (1, 4)
Draw = Callable[[np.random.Generator, int, int], np.ndarray]
Interval = Callable[[np.ndarray, int], tuple[float, float]]


def success(a: float, b: float) -> Draw:
    """Tasks whose chances are drawn from a beta distribution."""
    return lambda rng, n, k: (rng.random((n, k)) < rng.beta(a, b, (n, 1))).astype(float)


def partial(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Partial credit: nothing, or some of it."""
    return (rng.random((n, k)) < 0.8 * rng.random((n, 1))) * rng.beta(4, 2, (n, k))


def rare(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Partial credit that few tasks ever give."""
    return (rng.random((n, k)) < rng.beta(0.5, 4.5, (n, 1))) * rng.choice([0.25, 0.5, 1.0], (n, k))


def costly(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """One for a success, less 0.05 a turn."""
    return (rng.random((n, k)) < rng.random((n, 1))) - 0.05 * rng.integers(3, 20, (n, k))


def points(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Points, of normal distribution."""
    return 50 + 20 * rng.normal(size=(n, 1)) + 10 * rng.normal(size=(n, k))


def difference(first: float, second: float) -> Draw:
    """Two sides on tasks that are hard, or easy, for both; the differences of their means by task."""

    def draw(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
        hard = rng.normal(size=(n, 1))
        sides = [
            (rng.random((n, k)) < stats.norm.cdf(stats.norm.ppf(p) * math.sqrt(2) + hard)).mean(1) for p in (first, second)
        ]
        return sides[1] - sides[0]

    return draw


def score_difference(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Points of two sides, the second 5 better."""
    hard = 20 * rng.normal(size=(n, 1))
    sides = [(hard + 10 * rng.normal(size=(n, k))).mean(1) for _ in range(2)]
    return 5 + sides[1] - sides[0]


def _success(values: np.ndarray, seed: int) -> tuple[float, float]:
    rate = clustered((values > 0).tolist())
    return rate.low, rate.high


def _score(values: np.ndarray, seed: int) -> tuple[float, float]:
    found = average(values.tolist(), seed)
    return found.low, found.high


def designs() -> Iterator[tuple[str, str, float, Draw, Callable[[int], Interval]]]:
    """Kind, name, truth, how it is drawn, and its interval given the episodes a task."""
    for name, a, b in (
        ("even tasks, 50 %", 1, 1),
        ("won or lost, 50 %", 0.3, 0.3),
        ("hard, 25 %", 2, 6),
        ("easy, 95 %", 9.5, 0.5),
    ):
        yield "success", name, a / (a + b), success(a, b), lambda k: _success
    yield "score", "partial credit", 0.4 * 4 / 6, partial, lambda k: _score
    yield "score", "rare partial credit", 0.1 * 1.75 / 3, rare, lambda k: _score
    yield "score", "success less 0.05 a turn", 0.5 - 0.05 * 11, costly, lambda k: _score
    yield "score", "points, normal", 50, points, lambda k: _score
    for a, b in ((0.5, 0.5), (0.5, 0.6), (0.2, 0.25), (0.9, 0.97)):
        yield "paired", f"success {a:.0%} to {b:.0%}", b - a, difference(a, b), _paired
    yield "paired", "points, 5 better", 5, score_difference, lambda k: lambda d, seed: resampled(d.tolist(), [1] * len(d), seed)


def _paired(k: int) -> Interval:
    return lambda d, seed: paired_interval(d, 1 / math.sqrt(k), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--only", choices=("success", "score", "paired"))
    arguments = parser.parse_args()
    intervals.RESAMPLES = paired.RESAMPLES = 2_000  # enough for a count, and five times as quick
    print("kind     design                      tasks  samples  covered  above  below  width")
    found = []
    for kind, name, truth, draw, interval in designs():
        if arguments.only not in (None, kind):
            continue
        for n in TASKS:
            for k in SAMPLES:
                rng = np.random.default_rng([n, k])
                bounds = np.array([interval(k)(draw(rng, n, k), trial) for trial in range(arguments.trials)])
                low, high = bounds[:, 0] - 1e-12, bounds[:, 1] + 1e-12
                row = {
                    "kind": kind, "design": name, "tasks": n, "samples": k,
                    "covered": float(np.mean((low <= truth) & (truth <= high))), "above": float(np.mean(low > truth)),
                    "below": float(np.mean(high < truth)), "width": float(np.mean((high - low)[np.isfinite(high - low)])),
                }  # fmt: skip
                found.append(row)
                shares = "  ".join(f"{100 * row[key]:5.1f}" for key in ("covered", "above", "below"))
                print(f"{kind:8} {name:27} {n:5}  {k:7}    {shares}  {row['width']:.3g}", flush=True)
    inside = [row for row in found if 0.93 <= row["covered"] <= 0.97]
    short = [row for row in found if row["covered"] < 0.93]
    worst = min(found, key=lambda row: row["covered"])
    print(
        json.dumps(
            {
                "trials": arguments.trials,
                "designs": len(found),
                "inside_93_97": len(inside),
                "below_93": len(short),
                "lowest": worst,
            }
        )
    )


if __name__ == "__main__":
    main()
