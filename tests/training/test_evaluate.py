"""Success rates and their interval."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill.chat import Chat
from agentdistill.errors import UserError
from agentdistill.policies.base import SamplingParams
from agentdistill.rollout import Limits, Rollout
from agentdistill.training import evaluate as module
from agentdistill.training.evaluate import across_seeds, caveats, clustered, env_failures, evaluate, stop_reasons, wilson


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
    widest = 2 * module.Z * math.sqrt(p * (1 - p) / m + module.Z**2 / (4 * m * m)) / (1 + module.Z**2 / m)
    narrowest = 2 * module.Z * math.sqrt(p * (1 - p) / n + module.Z**2 / (4 * n * n)) / (1 + module.Z**2 / n)
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


def solver(seeds: list[int], samples: int) -> Callable[[int, int], str]:
    """Solves the even seeds, and errs on the others."""
    batch = module.BATCH
    calls = {"runs": 0}

    def script(key: int, turn: int) -> str:
        del turn
        index = calls["runs"] * batch + key
        seed = seeds[index // samples]
        return str(random.Random(seed).randrange(16)) if seed % 2 == 0 else "99"

    script.calls = calls  # type: ignore[attr-defined]
    return script


def test_every_task_is_played_so_many_times_in_batches(
    chat: Chat, make_rollout: Callable[..., Rollout], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    seeds = [2, 3, 4, 5, 6]
    script = solver(seeds, samples=2)
    rollout = make_rollout(chat, script, Limits(max_turns=1))
    run = rollout.run

    def counted(*args, **kwargs):
        played = run(*args, **kwargs)
        script.calls["runs"] += 1  # type: ignore[attr-defined]
        return played

    rollout.run = counted  # type: ignore[method-assign]
    rate, played = evaluate(rollout, seeds, SamplingParams(), seed=0, label="x", samples=2)
    assert script.calls["runs"] == 3  # type: ignore[attr-defined]
    assert [t.seed for t in played] == [s for s in seeds for _ in range(2)]
    assert [t.group for t in played] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [t.success for t in played] == [s % 2 == 0 for s in seeds for _ in range(2)]
    assert (rate.success, rate.n, rate.tasks) == (0.6, 10, 5)
    assert len({t.id for t in played}) == 10


def test_a_failing_environment_counts_as_no_success_and_is_told(chat: Chat, make_rollout: Callable[..., Rollout]) -> None:
    rollout = make_rollout(chat, lambda key, turn: "99", Limits(max_turns=2), fault="raise", fault_seeds=[3])
    rate, played = evaluate(rollout, [2, 3, 4], SamplingParams(), seed=0, label="x")
    assert (rate.success, rate.n) == (0.0, 3)
    assert stop_reasons(played) == {"max_turns": 2, "env_error": 1}
    assert len(env_failures(played)) == 1
    assert "broken pipe" in env_failures(played)[0]


def test_several_samples_at_temperature_0_are_refused(chat: Chat, make_rollout: Callable[..., Rollout]) -> None:
    rollout = make_rollout(chat, lambda key, turn: "99", Limits(max_turns=1))
    with pytest.raises(UserError, match="3 samples of a task at temperature 0 are one and the same episode"):
        evaluate(rollout, [2, 3], SamplingParams(temperature=0), seed=0, label="x", samples=3)
    rate, _ = evaluate(rollout, [2, 3], SamplingParams(temperature=0), seed=0, label="x")
    assert (rate.n, rate.tasks) == (2, 2)


@pytest.mark.parametrize(("seeds", "samples"), [([], 1), ([2], 0), ([2], -1)])
def test_an_evaluation_of_nothing_is_refused(
    chat: Chat, make_rollout: Callable[..., Rollout], seeds: list[int], samples: int
) -> None:
    rollout = make_rollout(chat, lambda key, turn: "99")
    with pytest.raises(UserError, match="needs 1 task and 1 sample at least"):
        evaluate(rollout, seeds, SamplingParams(), seed=0, label="x", samples=samples)


def test_what_no_message_decided_is_said_beside_the_rate(chat: Chat, make_rollout: Callable[..., Rollout]) -> None:
    rollout = make_rollout(chat, lambda key, turn: "99", Limits(max_turns=2), fault="raise", fault_seeds=[3])
    _, played = evaluate(rollout, [2, 3, 4], SamplingParams(), seed=0, label="x")
    (note,) = caveats(played)
    assert "failed in 1 of 3 episodes" in note
    assert "broken pipe" in note
    assert caveats([played[0], played[2]]) == []
    with pytest.raises(UserError, match=r"the environment failed in every one of 1 episodes, first with: .*broken pipe"):
        caveats([played[1]])


def test_tasks_that_never_fit_the_context_are_no_failure_of_the_model(chat: Chat, make_rollout: Callable[..., Rollout]) -> None:
    rollout = make_rollout(chat, lambda key, turn: "99", Limits(max_turns=2, max_context=4))
    _, played = evaluate(rollout, [2, 3], SamplingParams(), seed=0, label="x")
    with pytest.raises(UserError, match="the first observation of every one of 2 episodes was longer than the context"):
        caveats(played)


def test_the_interval_over_seeds_is_students_t_by_hand() -> None:
    mean, low, high = across_seeds([0.52, 0.28, 0.50])
    assert mean == pytest.approx(1.30 / 3)
    assert (high - low) / 2 == pytest.approx(4.302653 * 0.133167 / math.sqrt(3), rel=1e-4)  # t of 2 degrees, sample deviation
    assert across_seeds([0.2, 0.4])[2] == pytest.approx(0.3 + 12.7062 * 0.1, rel=1e-4)
    assert across_seeds([0.2]) == (0.2, -math.inf, math.inf)
