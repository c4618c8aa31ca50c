"""Paired comparisons agree with the textbook's, their intervals cover the truth, and they say what they cannot tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from agentdistill import api, cli
from agentdistill.compare import compare, p_value, paired_interval
from agentdistill.errors import UserError
from agentdistill.store import Store
from agentdistill.trajectory import StopReason, Trajectory, Turn


def played(outcomes: dict[int, list[float]] | np.ndarray, **changes: object) -> list[Trajectory]:
    """Episodes by task seed; one of worth 1 is a success."""
    by_seed = outcomes if isinstance(outcomes, dict) else {seed: [value] for seed, value in enumerate(outcomes)}
    return [
        Trajectory(
            f"e/{seed}-{k}", str(changes.get("env_id", "lab/Guess-v0")), seed, str(seed), [],
            [Turn([1], [2], "a", "b", reward=float(value))], StopReason.TERMINATED, success=value == 1,
            env_options=dict(changes.get("env_options", {})),
        )
        for seed, values in by_seed.items() for k, value in enumerate(values)
    ]  # fmt: skip


def test_the_p_value_is_mcnemars_exact_one():
    rng = np.random.default_rng(0)
    for n in (1, 5, 40, 300):
        for _ in range(20):
            d = rng.integers(-1, 2, n).astype(float)
            k, m = int((d > 0).sum()), int((d != 0).sum())
            expected = stats.binomtest(k, m, 0.5).pvalue if m else 1.0
            assert p_value(d) == pytest.approx(expected, rel=1e-9)


def test_the_p_value_of_other_differences_is_the_permutation_tests():
    rng = np.random.default_rng(1)
    for n in (8, 30, 100):
        d = rng.normal(0.15, 0.5, n)
        expected = stats.permutation_test(
            (d,), np.sum, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(2)
        ).pvalue
        assert p_value(d) == pytest.approx(expected, abs=0.015)


def test_differences_of_nothing_say_nothing():
    assert p_value(np.zeros(50)) == 1
    low, high = paired_interval(np.zeros(50))
    assert low < 0 < high
    assert high - low < 0.15


def test_the_interval_is_the_bootstraps_where_many_tasks_differ():
    d = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], 2_000, p=[0.2, 0.5, 0.3])
    expected = stats.bootstrap((d,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(4))
    assert paired_interval(d) == pytest.approx(tuple(expected.confidence_interval), abs=0.002)


@pytest.mark.parametrize(("n", "first", "second", "alike"), [(50, 0.5, 0.6, 0.3), (100, 0.2, 0.25, 0.6), (256, 0.7, 0.8, 0.5)])
def test_intervals_cover_the_truth(n: int, first: float, second: float, alike: float, monkeypatch):
    monkeypatch.setattr("agentdistill.compare.RESAMPLES", 2_000)  # enough for a count, and five times as quick
    rng = np.random.default_rng(n)
    covered, trials = 0, 1_000
    for _ in range(trials):
        luck = rng.random(n)
        other = np.where(rng.random(n) < alike, luck, rng.random(n))
        low, high = paired_interval((other < second).astype(float) - (luck < first), seed=int(rng.integers(1 << 30)))
        covered += low <= second - first <= high
    assert 0.93 <= covered / trials <= 0.97


def test_episodes_of_one_task_count_as_one_value():
    first = {seed: [1.0, 0.0, 0.0, 0.0] for seed in range(30)}
    second = {seed: [1.0, 1.0, 0.0, 0.0] for seed in range(30)}
    found = compare(played(first), played(second))
    assert (found.tasks, found.difference, found.better, found.worse) == (30, 0.25, 30, 0)
    doubled = {seed: values * 2 for seed, values in second.items()}
    assert compare(played(first), played(doubled)) == found


def test_exchanging_the_sides_turns_the_sign_only():
    rng = np.random.default_rng(5)
    a, b = (rng.integers(0, 2, 200).astype(float) for _ in range(2))
    there, back = compare(played(a), played(b)), compare(played(b), played(a))
    assert (there.difference, there.p_value, there.detectable) == (-back.difference, back.p_value, back.detectable)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.01)


def test_only_tasks_that_both_have_are_compared():
    first, second = {s: [1.0] for s in range(10)}, {s: [0.0] for s in range(5, 20)}
    found = compare(played(first), played(second))
    assert (found.tasks, found.left_out, found.difference) == (5, 15, -1.0)


def test_a_few_tasks_without_a_difference_do_not_promise_to_show_small_ones():
    found = compare(played(np.zeros(4)), played(np.zeros(4)))
    assert 0.4 < found.detectable < 0.8


@pytest.mark.parametrize("changes", [{"env_id": "lab/Other-v0"}, {"env_options": {"size": 4}}])
def test_other_environments_or_options_are_other_tasks(changes: dict[str, object]):
    values = np.ones(10)
    with pytest.raises(UserError, match=r"0 tasks in common \(10 and 10 in all\)"):
        compare(played(values), played(values, **changes))


def test_the_verdict_says_what_can_and_cannot_be_told():
    rng = np.random.default_rng(6)
    a = rng.integers(0, 2, 400).astype(float)
    clear = compare(played(a), played(np.maximum(a, rng.random(400) < 0.5)))
    assert "higher" in clear.verdict
    assert "several seeds" in clear.verdict
    none = compare(played(a), played(rng.permutation(a)))
    assert "cannot be told apart on these 400 tasks" in none.verdict
    assert f"{100 * none.detectable:.2g} points would be seen" in none.verdict


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


def test_rewards_can_be_compared():
    found = compare(played(np.array([0.2, 0.4, 0.6])), played(np.array([0.3, 0.5, 0.7])), "reward")
    assert (found.measure, found.better) == ("reward", 3)
    assert found.difference == pytest.approx(0.1)


def test_two_evaluations_on_disk_are_compared_and_the_result_can_be_read_again(tmp_path: Path, capsys):
    Store(tmp_path / "a" / "store").write("eval-after", played(np.zeros(40)))
    Store(tmp_path / "b" / "store").write("eval", played(np.ones(40)))
    out = tmp_path / "new" / "ab.json"
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "success 0.0 %" in said
    assert "The second is higher on these 40 tasks" in said
    assert json.loads(out.read_text())["difference"] == 1.0
    Store(tmp_path / "a" / "store").write("eval-before", played(np.zeros(40)))
    assert api.compare(f"{tmp_path}/a:eval-before", f"{tmp_path}/a", say=lambda _: None).difference == 0.0


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path, capsys):
    Store(tmp_path / "a" / "store").write("iter-000001", played(np.zeros(4)))
    assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "a")]) == 1
    assert "holds no evaluation; it holds iter-000001; name a batch as FOLDER:BATCH" in capsys.readouterr().err
