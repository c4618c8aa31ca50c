"""Whether KL grows with the turn index, on data where the answer is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agentdistill.report.data import load_run
from agentdistill.report.growth import Unit, kl_growth, measure, spearman, units_of_episodes, units_of_iterations
from agentdistill.trajectory import Scores, StopReason, Trajectory, Turn


def units(slope: float, n: int = 60, noise: float = 0.1, seed: int = 0) -> list[Unit]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        turn = np.arange(rng.integers(3, 11), dtype=np.float64)
        kl = 0.3 + slope * turn + rng.normal(0, noise, len(turn))
        made.append(Unit(turn, kl, rng.integers(1, 9, len(turn)).astype(np.float64)))
    return made


@pytest.mark.parametrize(("slope", "verdict"), [(0.05, "grows"), (-0.05, "does not grow")])
def test_a_planted_slope_is_found_inside_its_interval(slope: float, verdict: str) -> None:
    found = measure(units(slope), "episodes", 5)
    assert found.verdict == verdict
    for estimate in (found.pooled, found.within):
        assert estimate is not None
        assert estimate.low < slope < estimate.high
        assert estimate.high - estimate.low < 0.03
    assert f"{verdict} with the turn index" in found.sentence


def test_flat_divergence_is_called_growing_about_as_rarely_as_the_interval_promises() -> None:
    wrong = sum(measure(units(0.0, seed=seed), "episodes", 5).verdict == "grows" for seed in range(60))
    assert wrong <= 6  # expected: 2.5 % of 60


def test_the_slope_is_weighted_least_squares() -> None:
    made = units(0.1, n=7)
    turn, kl, tokens = (np.concatenate([getattr(unit, name) for unit in made]) for name in ("turn", "kl", "tokens"))
    found = measure(made, "episodes", 1).pooled
    assert found is not None
    assert found.value == pytest.approx(np.polyfit(turn, kl, 1, w=np.sqrt(tokens))[0])


def test_long_episodes_that_are_worse_throughout_raise_the_pooled_slope_only() -> None:
    rng, made = np.random.default_rng(0), []
    for k in range(80):
        turn = np.arange(3 if k % 2 else 12, dtype=np.float64)
        level = 0.1 if k % 2 else 0.6
        made.append(Unit(turn, level + rng.normal(0, 0.03, len(turn)), np.ones(len(turn))))
    found = measure(made, "episodes", 5)
    assert found.pooled is not None
    assert found.within is not None
    assert found.pooled.low > 0.005
    assert found.within.low < 0 < found.within.high


def test_too_few_turns_or_units_cannot_tell() -> None:
    two = [Unit(np.array([0.0, 1.0]), np.array([0.1, 0.9]), np.ones(2)) for _ in range(9)]
    for made in ([], two, units(0.1, n=1)):
        found = measure(made, "episodes", 3)
        assert found.verdict == "cannot be told"
        assert "cannot be told from this run" in found.sentence


def test_spearman_is_the_correlation_of_ranks_with_ties_at_their_mean() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert spearman(x, -x) == pytest.approx(-1.0)
    assert spearman(x, np.array([1.0, 2.0, 2.0, 4.0, 3.0])) == pytest.approx(8.5 / np.sqrt(10.0 * 9.5))
    assert np.isnan(spearman(x, np.ones(5)))


def test_an_episode_is_averaged_by_turn_over_student_tokens_only() -> None:
    expert = Turn([1], [2, 3], "a", "o", author="expert", finish="replayed")
    first = Turn([1], [2, 3], "a", "o", [-9.0] * 2, [-1.0, -2.0])
    last = Turn([1], [4], "a", "o", [-9.0], [-0.5])
    item = Trajectory("t", "e", 0, "t", [], [expert, first, last], StopReason.TERMINATED)
    item.scores["teacher"] = Scores(np.array([-2.0, -5.0, -0.25]))
    (unit,) = units_of_episodes([item])
    assert unit.turn.tolist() == [1.0, 2.0]
    assert unit.kl.tolist() == [2.0, -0.25]
    assert unit.tokens.tolist() == [2.0, 1.0]
    item.scores = {}
    assert units_of_episodes([item]) == []


def test_iterations_without_tokens_at_a_turn_leave_it_out() -> None:
    (unit,) = units_of_iterations([{"kl_by_turn": [0.1, None, 0.3, 0.4], "tokens_by_turn": [5, 5, 0, 7]}, {}])
    assert unit.turn.tolist() == [0.0, 3.0]
    assert unit.kl.tolist() == [0.1, 0.4]


def test_a_run_is_answered_from_its_episodes_and_else_from_its_metrics(make_run: Callable[..., Path]) -> None:
    found = kl_growth(load_run(make_run(growth=0.08)))
    assert (found.verdict, found.kind, found.units, found.iterations) == ("grows", "episodes", 24, 3)
    assert found.pooled is not None
    assert found.pooled.low < 0.08 < found.pooled.high
    found = kl_growth(load_run(make_run(growth=0.08, store=False)))
    assert (found.verdict, found.kind, found.units) == ("grows", "iterations", 3)
    assert kl_growth(load_run(make_run(growth=-0.01))).verdict == "does not grow"


def test_a_slope_whose_interval_holds_zero_is_no_verdict() -> None:
    found = measure(units(0.0, n=12, noise=0.2), "episodes", 5)
    assert found.pooled is not None
    assert found.pooled.low < 0 < found.pooled.high
    assert "whether the KL per token grows with the turn index cannot be told" in found.sentence
