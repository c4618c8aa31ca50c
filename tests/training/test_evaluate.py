"""Evaluation on fixed tasks, and what is told beside the rate."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from agentdistill.chat import Chat
from agentdistill.errors import UserError
from agentdistill.evaluation import Evaluation, stop_reasons
from agentdistill.policies.base import SamplingParams
from agentdistill.rollout import Limits, Rollout
from agentdistill.training import evaluate as module
from agentdistill.training.evaluate import caveats, env_failures, evaluate


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


def test_an_evaluation_has_the_rate_that_was_played_and_the_rewards(chat: Chat, make_rollout: Callable[..., Rollout]) -> None:
    seeds = [2, 3, 4, 5, 6]
    rollout = make_rollout(chat, solver(seeds, samples=2), Limits(max_turns=1))
    rate, played = evaluate(rollout, seeds, SamplingParams(), seed=0, label="x", samples=2)
    found = Evaluation.of("x", played)
    assert found.result.success == rate
    assert found.result.reward is not None
    assert (found.result.reward.mean, found.result.reward.low, found.result.reward.tasks) == (rate.success, rate.low, 5)


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
