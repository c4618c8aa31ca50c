"""Two evaluations on the same tasks, compared in pairs: what the difference is, how sure that is, and what cannot be told.

Tasks, not episodes, are the sample: several episodes of a task count as one value, their mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from agentdistill.errors import UserError
from agentdistill.intervals import Rate, Z, clustered
from agentdistill.seeds import derive
from agentdistill.trajectory import FloatArray, Trajectory
from agentdistill.verbs import callable_as_verb

Measure = Literal["success", "reward"]
RESAMPLES = 10_000
EXACT = 5_000  # pairs up to which the binomial sum is exact in floats, and quick
_POWER = Z + 0.841621  # the latter is the normal distribution's 80 % point


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second evaluation against the first.

    Attributes:
        measure: `success` or `reward`.
        tasks: how many both have, which are compared.
        left_out: how many only one of them has.
        first, second: means over the tasks; of success in 0 … 1.
        difference: second minus first.
        low, high: its 95 % interval (see `paired_interval`).
        p_value: of no difference at all (see `p_value`).
        better, worse: tasks on which the second has the higher and the lower value.
        detectable: the difference that so many tasks of this kind show in four comparisons of five.
    """

    measure: Measure
    tasks: int
    left_out: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    better: int
    worse: int
    detectable: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def verdict(self) -> str:
        """What the data can and cannot tell, in a sentence or two."""
        unit = " points" if self.measure == "success" else ""
        scale = 100 if self.measure == "success" else 1
        tells = (
            f"{scale * self.difference:+.3g}{unit} [{scale * self.low:+.3g}, {scale * self.high:+.3g}], p = {self.p_value:.2g}"
        )
        if self.low > 0 or self.high < 0:
            which = "higher" if self.low > 0 else "lower"
            return (
                f"The second is {which} on these {self.tasks} tasks: {tells}. That is a statement about these two checkpoints; "
                "about two methods, only several seeds of each can tell."
            )
        return (
            f"The two cannot be told apart on these {self.tasks} tasks: {tells}. "
            f"A difference of {scale * self.detectable:.2g}{unit} would be seen in four comparisons of five."
        )


def compare(first: Sequence[Trajectory], second: Sequence[Trajectory], measure: Measure = "success") -> Comparison:
    """Pair two evaluations by environment, options and task seed.

    Raises:
        UserError: when they have fewer than two tasks in common, or a reward was not told (of imported conversations).
    """
    ours, theirs = _by_task(first, measure), _by_task(second, measure)
    common = sorted(ours.keys() & theirs.keys())
    if len(common) < 2:
        raise UserError(
            f"the two evaluations have {len(common)} tasks in common ({len(ours)} and {len(theirs)} in all), and a paired "
            "comparison needs 2; evaluate both on one environment, with the same options, split and --tasks"
        )
    a, b = (np.array([np.mean(each[task]) for task in common]) for each in (ours, theirs))
    low, high = paired_interval(b - a)
    return Comparison(
        measure, len(common), len(ours.keys() ^ theirs.keys()), float(a.mean()), float(b.mean()), float((b - a).mean()),
        low, high, p_value(b - a), int((b > a).sum()), int((b < a).sum()),
        float(_POWER * _smoothed(b - a).std(ddof=1) / math.sqrt(len(common) + 2)),
    )  # fmt: skip


def rates(trajectories: Sequence[Trajectory]) -> Rate:
    """The success rate of one side, with its own interval."""
    return clustered([[bool(value) for value in values] for values in _by_task(trajectories, "success").values()])


def paired_interval(differences: FloatArray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of differences between tasks, `[n]` → (low, high), by a smoothed bootstrap over tasks.

    Percentiles of 10,000 resampled means, with two tasks added to the sample that differ by ±√½ of the largest possible
    difference: the bootstrap's form of adding half a task to each cell of the paired table (A. Agresti and Y. Min, Statistics
    in Medicine 2005). Without them a few tasks that hardly differ give intervals that are too short, or empty. The largest
    possible difference is 1, or the largest there is where that is more.
    """
    sample = _smoothed(differences)
    values, counts = np.unique(sample, return_counts=True)  # few, where all are successes: then this is quick
    rng, n = np.random.default_rng(derive(seed, "compare")), len(sample)
    chunk = max(1, 2_000_000 // len(values))
    means = [rng.multinomial(n, counts / n, min(chunk, RESAMPLES - start)) @ values / n for start in range(0, RESAMPLES, chunk)]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def _smoothed(differences: FloatArray) -> FloatArray:
    """`[n + 2]`: with the two tasks that `paired_interval` adds."""
    added = max(1.0, float(np.abs(differences).max())) * math.sqrt(0.5)
    return np.append(differences, [added, -added])


def p_value(differences: FloatArray, seed: int = 0) -> float:
    """Two-sided p-value of differences whose signs are a matter of chance, `[n]`.

    Where all that differ do so by one amount it is McNemar's exact test (Psychometrika 1947): twice the binomial tail, 1 at
    most. Otherwise the signs are drawn anew 10,000 times, and the observed one is counted among them.
    """
    live = differences[differences != 0]
    if not len(live):
        return 1.0
    if len(live) <= EXACT and np.ptp(np.abs(live)) == 0:
        n, k = len(live), int(min((live > 0).sum(), (live < 0).sum()))
        log_tail = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)]
        return min(1.0, 2 * math.fsum(map(math.exp, log_tail)))
    rng = np.random.default_rng(derive(seed, "signs"))
    observed = abs(live.sum()) * (1 - 1e-12)  # sums in another order differ in the last bit
    beyond = sum(abs(float(rng.choice([-1.0, 1.0], len(live)) @ live)) >= observed for _ in range(RESAMPLES))
    return float(beyond + 1) / (RESAMPLES + 1)


def _by_task(trajectories: Sequence[Trajectory], measure: Measure) -> dict[tuple[str, str, int], list[float]]:
    """The values of each task's episodes."""
    out: dict[tuple[str, str, int], list[float]] = {}
    for each in trajectories:
        if measure == "reward" and math.isnan(each.reward):
            raise UserError(f"trajectory '{each.id}' was imported without a reward, so rewards cannot be compared")
        key = (each.env_id, repr(sorted(each.env_options.items())), each.seed)
        out.setdefault(key, []).append(float(each.success if measure == "success" else each.reward))
    return out


callable_as_verb(__name__)
