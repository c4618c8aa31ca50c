"""Paired statistics agree with scipy's and statsmodels', and their intervals cover the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from agentdistill.intervals import resampled
from agentdistill.paired import ALL_SIGNS, MCNEMAR, SOME_SIGNS, holm, p_value, paired_interval, which_test


def test_the_p_value_is_mcnemars_exact_one():
    rng = np.random.default_rng(0)
    for n in (1, 5, 40, 300):
        for _ in range(20):
            a, b = rng.integers(0, 2, (2, n))
            table = [[int(((a == x) & (b == y)).sum()) for y in (0, 1)] for x in (0, 1)]
            expected = mcnemar(table, exact=True).pvalue if (a != b).any() else 1.0
            assert p_value((b - a).astype(float)) == pytest.approx(expected, rel=1e-9)
            assert which_test((b - a).astype(float)) == MCNEMAR


@pytest.mark.parametrize(("n", "test"), [(8, ALL_SIGNS), (14, ALL_SIGNS), (15, SOME_SIGNS), (100, SOME_SIGNS)])
def test_the_p_value_of_other_differences_is_the_permutation_tests(n: int, test: str):
    d = np.random.default_rng(n).normal(0.15, 0.5, n)
    expected = stats.permutation_test(
        (d,), np.sum, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(2)
    ).pvalue
    assert which_test(d) == test
    assert p_value(d) == pytest.approx(expected, abs=1e-9 if test == ALL_SIGNS else 0.015)


def test_tasks_without_a_difference_change_no_p_value():
    d = np.random.default_rng(4).normal(0.4, 0.5, 12)
    assert p_value(np.append(d, np.zeros(50))) == p_value(d)


def test_p_values_of_several_types_are_holms():
    rng = np.random.default_rng(5)
    for n in (1, 2, 6):
        p = rng.random(n) ** 3
        assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1])


def test_differences_of_nothing_say_nothing():
    assert p_value(np.zeros(50)) == 1
    low, high = paired_interval(np.zeros(50))
    assert low < 0 < high
    assert high - low < 0.15


def test_the_interval_is_the_bootstraps_where_many_tasks_differ():
    d = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], 500, p=[0.2, 0.5, 0.3])
    expected = stats.bootstrap((d,), np.mean, method="percentile", n_resamples=5_000, rng=np.random.default_rng(4))
    assert paired_interval(d) == pytest.approx(tuple(expected.confidence_interval), abs=0.005)
    assert resampled(d.tolist(), [1] * len(d)) == pytest.approx(tuple(expected.confidence_interval), abs=0.005)


def test_the_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(7)
    n, spread = 200, 0.8  # of the differences, which are -1, 0 or 1
    detectable = 2.8016 * spread / np.sqrt(n)
    share = (spread**2 + detectable**2 + np.array([-detectable, detectable])) / 2
    found = 0
    for _ in range(300):
        d = rng.choice([-1.0, 1.0, 0.0], n, p=[*share, 1 - share.sum()])
        low, _ = paired_interval(d)
        found += low > 0
    assert 0.7 < found / 300 < 0.9


def pairs(rng: np.random.Generator, n: int, samples: int, rates: tuple[float, float], spread: float) -> np.ndarray:
    """Differences of mean success between two sides on tasks that are alike hard for both."""
    hard = spread * rng.normal(size=(n, 1))
    sides = [
        rng.random((n, samples)) < stats.norm.cdf(stats.norm.ppf(rate) * math.sqrt(1 + spread**2) + hard) for rate in rates
    ]
    return sides[1].mean(1) - sides[0].mean(1)


@pytest.mark.parametrize(
    ("n", "samples", "rates", "least", "most"),
    [
        (50, 1, (0.5, 0.6), 0.93, 0.97),
        (100, 1, (0.2, 0.25), 0.93, 0.97),
        (256, 1, (0.7, 0.8), 0.93, 0.97),
        (50, 4, (0.5, 0.6), 0.93, 0.97),
        (100, 4, (0.2, 0.25), 0.93, 0.97),
        (20, 4, (0.5, 0.5), 0.93, 0.98),
        (6, 4, (0.5, 0.6), 0.93, 1.0),  # few tasks: too wide rather than too narrow
    ],
)
def test_intervals_cover_the_truth(n: int, samples: int, rates: tuple[float, float], least: float, most: float, monkeypatch):
    monkeypatch.setattr("agentdistill.paired.RESAMPLES", 1_000)  # enough for a count, and ten times as quick
    rng, trials = np.random.default_rng(n * samples), 1_000
    covered = 0
    for _ in range(trials):
        low, high = paired_interval(pairs(rng, n, samples, rates, 1.0), 1 / math.sqrt(samples), seed=int(rng.integers(1 << 30)))
        covered += low - 1e-12 <= rates[1] - rates[0] <= high + 1e-12
    assert least <= covered / trials <= most
