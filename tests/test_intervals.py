"""Intervals of success rates and scores, against textbooks, statsmodels and by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from agentdistill.intervals import Mean, Z, across_seeds, average, clustered, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n) with z² = 3.841459
        (5, 10, 0.236593, 0.763407),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (81, 263, 0.2553, 0.3662),  # these two as published: R. G. Newcombe, Statistics in Medicine 1998
        (15, 148, 0.0624, 0.1605),
        (1, 1, 0.206549, 1.0),
    ],
)
def test_the_interval_equals_wilsons_by_hand(successes: int, n: int, low: float, high: float) -> None:
    rate = wilson(successes, n)
    assert (rate.success, rate.n) == (successes / n, n)
    assert rate.low == pytest.approx(low, abs=5e-5)
    assert rate.high == pytest.approx(high, abs=5e-5)


def test_no_episodes_say_nothing() -> None:
    rate = wilson(0, 0)
    assert (rate.low, rate.high, rate.n) == (0.0, 1.0, 0)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_rate_and_mirrors_failures(case: tuple[int, int]) -> None:
    successes, n = case
    rate, mirror = wilson(successes, n), wilson(n - successes, n)
    assert 0 <= rate.low <= rate.success + 1e-12
    assert rate.success - 1e-12 <= rate.high <= 1
    assert rate.low == pytest.approx(1 - mirror.high, abs=1e-9)
    for bound in (rate.low, rate.high):  # each bound is where the score test just rejects
        if 0 < bound < 1:
            assert abs(rate.success - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / n), abs=1e-7)
    more = wilson(10 * successes, 10 * n)
    assert more.high - more.low < rate.high - rate.low


def test_a_rate_reads_in_percent() -> None:
    assert str(wilson(5, 10)) == "50.0 % [23.7, 76.3] (n=10)"
    assert str(clustered([[True, True], [False, False]])) == "50.0 % [9.5, 90.5] (n=4 on 2 tasks)"


def width(outcomes: list[list[bool]]) -> float:
    rate = clustered(outcomes)
    return rate.high - rate.low


def test_tasks_played_once_have_wilsons_interval() -> None:
    outcomes = [True, False, True, True]
    assert clustered([[won] for won in outcomes]) == wilson(3, 4)


def test_episodes_that_repeat_each_other_add_nothing_to_their_task() -> None:
    once = [[i % 3 == 0] for i in range(60)]
    rate, alone = clustered([task * 8 for task in once]), clustered(once)
    assert (rate.n, rate.tasks, rate.success) == (480, 60, alone.success)
    assert (rate.low, rate.high) == pytest.approx((alone.low, alone.high), abs=1e-12)


def test_tasks_of_equal_difficulty_count_every_episode() -> None:
    even = [[True, False, False, False]] * 60
    rate, whole = clustered(even), wilson(60, 240)
    assert (rate.low, rate.high) == pytest.approx((whole.low, whole.high), abs=1e-12)


def test_nothing_but_one_outcome_tells_nothing_of_the_spread_and_counts_tasks() -> None:
    for won in (True, False):
        rate, tasks = clustered([[won] * 5] * 12), wilson(12 if won else 0, 12)
        assert (rate.low, rate.high, rate.n, rate.tasks) == (tasks.low, tasks.high, 60, 12)


def test_one_task_is_one_task_however_often_it_is_played() -> None:
    assert width([[True, False] * 50]) == pytest.approx(wilson(1, 1).high - wilson(1, 1).low, abs=0.15)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=30))
def test_the_clustered_interval_lies_between_that_of_tasks_and_that_of_episodes(outcomes: list[list[bool]]) -> None:
    rate = clustered(outcomes)
    p, n, m = rate.success, rate.n, rate.tasks
    assert (n, m) == (sum(map(len, outcomes)), len(outcomes))
    assert p == sum(map(sum, outcomes)) / n
    assert rate.low <= p + 1e-12
    assert p - 1e-12 <= rate.high
    mirror = clustered([[not won for won in task] for task in outcomes])
    assert (rate.low, rate.high) == pytest.approx((1 - mirror.high, 1 - mirror.low), abs=1e-9)
    widest = 2 * Z * math.sqrt(p * (1 - p) / m + Z**2 / (4 * m * m)) / (1 + Z**2 / m)
    narrowest = 2 * Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n * n)) / (1 + Z**2 / n)
    if rate.low > 0 and rate.high < 1:
        assert narrowest - 1e-9 <= rate.high - rate.low <= widest + 1e-9


@pytest.mark.parametrize(("tasks", "samples"), [(20, 8), (50, 4), (100, 4)])
@pytest.mark.parametrize(("a", "b"), [(0.3, 0.3), (1, 1), (2, 6)], ids=["won or lost", "any", "hard"])
def test_intervals_cover_the_rate_of_unequal_tasks_as_often_as_they_say(tasks: int, samples: int, a: float, b: float) -> None:
    """Tasks' own chances are drawn from a beta distribution; the rate that is meant is its mean."""
    rng, times = np.random.default_rng(tasks), 800
    held = independent = 0
    for _ in range(times):
        outcomes = rng.random((tasks, samples)) < rng.beta(a, b, (tasks, 1))
        rate, naive = clustered(outcomes.tolist()), wilson(int(outcomes.sum()), outcomes.size)
        held += rate.low <= a / (a + b) <= rate.high
        independent += naive.low <= a / (a + b) <= naive.high
    assert 0.93 <= held / times <= 0.98  # 95 %; its standard error is 0.8 points
    assert independent / times < 0.93  # what counting episodes as if each were a task would give


def test_the_interval_over_seeds_is_students_t_by_hand() -> None:
    mean, low, high = across_seeds([0.52, 0.28, 0.50])
    assert mean == pytest.approx(1.30 / 3)
    assert (high - low) / 2 == pytest.approx(4.302653 * 0.133167 / math.sqrt(3), rel=1e-4)  # t of 2 degrees, sample deviation
    assert across_seeds([0.2, 0.4])[2] == pytest.approx(0.3 + 12.7062 * 0.1, rel=1e-4)
    assert across_seeds([0.2]) == (0.2, -math.inf, math.inf)


def test_wilsons_interval_is_statsmodels() -> None:
    for successes, n in ((0, 7), (3, 7), (40, 50), (999, 1000)):
        rate = wilson(successes, n)
        assert (rate.low, rate.high) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-6)


def test_rewards_of_0_and_1_have_the_success_rates_interval() -> None:
    won = np.random.default_rng(1).integers(0, 2, (12, 3)).tolist()
    mean, rate = average(won), clustered([[bool(x) for x in task] for task in won])
    assert (mean.mean, mean.low, mean.high, mean.n, mean.tasks) == (rate.success, rate.low, rate.high, 36, 12)


def test_the_interval_of_other_rewards_is_the_bootstraps_over_tasks() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(5, 2, (60, 1)) + rng.normal(0, 1, (60, 4))
    found = average(values.tolist())
    expected = stats.bootstrap((values.mean(1),), np.mean, method="percentile", n_resamples=5_000, rng=rng).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=0.03)
    assert found.mean == pytest.approx(values.mean())
    few = average(values[:6].tolist())
    half = stats.t.ppf(0.975, 5) * values[:6].mean(1).std(ddof=1) / math.sqrt(6)
    assert (few.low, few.high) == pytest.approx((few.mean - half, few.mean + half), rel=0.01)


def test_more_episodes_of_the_same_tasks_narrow_a_score_only_as_far_as_they_tell_something_new() -> None:
    once = np.random.default_rng(3).normal(5, 2, (40, 1))
    again = average(np.repeat(once, 6, axis=1).tolist())
    assert (again.low, again.high) == pytest.approx((average(once.tolist()).low, average(once.tolist()).high))


def test_a_score_that_never_varies_promises_nothing_and_is_null_in_json() -> None:
    for values in ([[3.0, 3.0], [3.0]], [[5.0, 1.0]], [[-1.0]]):
        found = average(values)
        assert (found.low, found.high) == (-math.inf, math.inf)
        assert found.as_dict()["low"] is None
        assert Mean.from_dict(found.as_dict()) == found
        assert str(found).endswith("(too few tasks for an interval)")
    assert average([[0.0], [0.0], [0.0]]).high == wilson(0, 3).high  # of rewards in 0 to 1 the bounds are known
    assert average([]).n == 0


def test_uneven_tasks_count_by_their_episodes() -> None:
    values = [[10.0] * 4, [0.0], [4.0, 6.0], *([[5.0]] * 9)]
    assert average(values).mean == pytest.approx((40 + 10 + 45) / 16)


def partial(rng: np.random.Generator, tasks: int, samples: int) -> np.ndarray:
    return (rng.random((tasks, samples)) < 0.8 * rng.random((tasks, 1))) * rng.beta(4, 2, (tasks, samples))


def points(rng: np.random.Generator, tasks: int, samples: int) -> np.ndarray:
    return 50 + 20 * rng.normal(size=(tasks, 1)) + 10 * rng.normal(size=(tasks, samples))


@pytest.mark.parametrize(("tasks", "samples"), [(6, 4), (20, 1), (20, 4), (100, 1)])
@pytest.mark.parametrize(("draw", "truth"), [(partial, 0.4 * 4 / 6), (points, 50)], ids=["partial credit", "points"])
def test_intervals_of_scores_cover_the_truth(
    draw: Callable[..., np.ndarray], truth: float, tasks: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentdistill.intervals.RESAMPLES", 1_000)  # enough for a count, and ten times as quick
    rng, times = np.random.default_rng(tasks + samples), 1_000
    held = 0
    for trial in range(times):
        found = average(draw(rng, tasks, samples).tolist(), trial)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / times <= 0.97
