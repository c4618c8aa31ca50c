"""Does the student's divergence from its teacher grow with the turn index, as TCOD says it does?

Asked of the first iterations, before training has changed the answer. Two slopes are given, because late turns exist
only in long episodes, which are often the failing ones: a slope over all turns, and one between turns of one episode.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from agentdistill.report.data import Record, Run, matrix
from agentdistill.trajectory import FloatArray, Trajectory

MIN_TURNS = 3
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Unit:
    """One thing that a bootstrap draws: mean KL in nats per token by turn, with the number of tokens behind each."""

    turn: FloatArray
    kl: FloatArray
    tokens: FloatArray


@dataclass(frozen=True, slots=True)
class Slope:
    """Nats per token and turn, with a 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} nats per turn [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True, slots=True)
class Growth:
    """Whether KL grows with the turn index.

    Attributes:
        verdict: `grows`, `does not grow`, or `cannot be told`: the slope's interval holds 0, or there are fewer
            than three turns or two units.
        pooled, within: token-weighted slope over all turns, and over turns of the same unit.
        rank: Spearman's rank correlation of the turn index with the mean KL of the turn.
        turns, units, kind: how many turns and how many units (`episodes` or `iterations`) it rests on.
        iterations: how many of the first iterations.
    """

    verdict: str
    pooled: Slope | None = None
    within: Slope | None = None
    rank: float = float("nan")
    turns: int = 0
    units: int = 0
    kind: str = "episodes"
    iterations: int = 0

    @property
    def sentence(self) -> str:
        """The answer with its figures, in one sentence."""
        first = "first iteration" if self.iterations == 1 else f"first {self.iterations} iterations"
        start = f"At the start (the {first}, {self.units} {self.kind})"
        if self.pooled is None:
            return (
                "Whether KL grows with the turn index cannot be told from this run: the first iterations have student "
                f"tokens at {self.turns} turn indices in {self.units} scored {self.kind}; three and two are needed."
            )
        if self.verdict == "cannot be told":
            text = f"{start} whether the KL per token grows with the turn index cannot be told: {self.pooled}, "
        else:
            text = f"{start} the KL per token {self.verdict} with the turn index: {self.pooled}, "
        text += f"Spearman's ρ of mean KL and turn {self.rank:+.2f} over {self.turns} turns"
        if self.within is not None:
            text += f"; between turns of the same {self.kind.rstrip('s')} the slope is {self.within}"
        return text + "."


def kl_growth(run: Run) -> Growth:
    """Answer from the stored episodes of the first iterations, or from the metrics where no scored ones are stored.

    Episodes give the sampled log-ratio `log π − log T` at temperature 1, which is an unbiased estimate of the reverse
    KL where the tokens were sampled at temperature 1.
    """
    first = max(1, min(5, len(run.iterations) // 4))
    names = run.batches("iter-")[:first]
    units, kind = units_of_episodes(item for name in names for item in run.read(name)), "episodes"
    if not units:
        units, kind = units_of_iterations(run.iterations[:first]), "iterations"
    return measure(units, kind, min(first, len(run.iterations)))


def units_of_episodes(trajectories: Iterable[Trajectory]) -> list[Unit]:
    """A unit for each trajectory that a teacher has scored."""
    units = []
    for item in trajectories:
        scores = next(iter(item.scores.values()), None)
        stream = item.stream()
        action = stream.is_action
        if scores is None or not action.any() or len(scores.logprobs) != action.sum():
            continue
        ratio = stream.logprobs_t1[action] - scores.logprobs
        fine = np.isfinite(ratio)
        tokens = np.bincount(stream.turn[action][fine], minlength=1).astype(np.float64)
        sums = np.bincount(stream.turn[action][fine], weights=ratio[fine], minlength=1)
        turn = np.flatnonzero(tokens)
        units.append(Unit(turn.astype(np.float64), sums[turn] / tokens[turn], tokens[turn]))
    return units


def units_of_iterations(records: Sequence[Record]) -> list[Unit]:
    """A unit for each iteration's `kl_by_turn`."""
    kl, tokens = matrix(records, "kl_by_turn"), matrix(records, "tokens_by_turn")
    tokens = tokens if tokens.shape == kl.shape else np.ones_like(kl)
    units = []
    for row, weights in zip(kl, tokens, strict=True):
        turn = np.flatnonzero(np.isfinite(row) & (weights > 0))
        if len(turn):
            units.append(Unit(turn.astype(np.float64), row[turn], weights[turn]))
    return units


def measure(units: Sequence[Unit], kind: str, iterations: int, seed: int = 0) -> Growth:
    """Slopes with bootstrap intervals over the units, and the rank correlation."""
    turn = np.concatenate([unit.turn for unit in units]) if units else np.empty(0)
    seen = np.unique(turn)
    if len(seen) < MIN_TURNS or len(units) < 2:
        return Growth("cannot be told", turns=len(seen), units=len(units), kind=kind, iterations=iterations)
    kl, tokens = (np.concatenate([getattr(unit, name) for unit in units]) for name in ("kl", "tokens"))
    means = [np.average(kl[turn == index], weights=tokens[turn == index]) for index in seen]
    moments, equal = np.array([_moments(unit) for unit in units]), np.full(len(units), 1 / len(units))
    draws = np.random.default_rng(seed).multinomial(len(units), equal, RESAMPLES).astype(np.float64)
    pooled, within = (_slope(moments, draws, centred=centred) for centred in (False, True))
    verdict = "cannot be told"
    if pooled is not None and not pooled.low <= 0 <= pooled.high:
        verdict = "grows" if pooled.low > 0 else "does not grow"
    return Growth(verdict, pooled, within, spearman(seen, np.array(means)), len(seen), len(units), kind, iterations)


def spearman(x: FloatArray, y: FloatArray) -> float:
    """Spearman's rank correlation (ties take their mean rank); NaN where either side is constant."""
    rx, ry = (_ranks(values) - (len(values) + 1) / 2 for values in (x, y))
    scale = float(np.sqrt((rx**2).sum() * (ry**2).sum()))
    return float((rx * ry).sum() / scale) if scale > 0 else float("nan")


def _ranks(values: FloatArray) -> FloatArray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse].astype(np.float64)


def _moments(unit: Unit) -> list[float]:
    w, x, y = unit.tokens, unit.turn, unit.kl
    return [float(value.sum()) for value in (w, w * x, w * y, w * x * x, w * x * y)]


def _slope(moments: FloatArray, draws: FloatArray, *, centred: bool) -> Slope | None:
    """Weighted least-squares slope from the sums Σw, Σwx, Σwy, Σwx², Σwxy of each unit; None where x does not vary.

    `centred` takes each unit's own means away first, so that only differences inside a unit count.
    """

    def of(sums: FloatArray) -> FloatArray:
        w, wx, wy, wxx, wxy = np.moveaxis(sums, -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((wxy - wx * wy / w) / (wxx - wx * wx / w))

    if centred:
        w, wx, wy, wxx, wxy = moments.T
        inside = np.stack([wxx - wx * wx / w, wxy - wx * wy / w], axis=-1)
        spread = inside[:, 0].sum()
        value = inside[:, 1].sum() / spread if spread > 1e-12 else np.nan
        sampled = draws @ inside
        with np.errstate(invalid="ignore", divide="ignore"):
            estimates = sampled[:, 1] / sampled[:, 0]
    else:
        value, estimates = float(of(moments.sum(0))), of(draws @ moments)
    estimates = estimates[np.isfinite(estimates)]
    if not np.isfinite(value) or not len(estimates):
        return None
    low, high = np.quantile(estimates, [0.025, 0.975])
    return Slope(float(value), float(low), float(high))
