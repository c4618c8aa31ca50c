"""Calls in the wrong order, and arguments that cannot be, are refused before an environment sees them, whoever wrote it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from agentdistill.environment import TextEnv
from agentdistill.errors import UserError


class Counter(TextEnv):
    """Ends at its third step; `reset` fails for seed 13 after it has begun."""

    def __init__(self, limit: int = 3, **rest: Any) -> None:
        self.limit, self.seen = limit, list[Any]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.seed, self.turns = seed, 0
        if seed == 13:
            raise RuntimeError("no such game")
        return "go", {}

    def step(self, action: str, times: int = 1) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turns += times
        self.seen.append(action)
        return "on", 0.0, False, self.turns >= self.limit, {}


class Longer(Counter):
    """Goes on where its base would have ended, and counts two by a keyword of the base's."""

    def step(self, action: str) -> Any:
        observation, reward, terminated, _, info = super().step(action, times=2)
        return observation, reward, terminated, self.turns >= 2 * self.limit, info


class Plain:
    """Steps without being a text environment."""

    def step(self, action: str) -> Any:
        return f"{action}!", 0.0, False, False, {}


class Mixed(Plain, Counter):
    """Takes its step from a class that has no guards."""


class Renewing(Counter):
    """Begins anew by itself at the end."""

    def step(self, action: str) -> Any:
        answer = super().step(action)
        if answer[3]:
            self.reset(seed=1)
        return answer


def begun(env: TextEnv) -> TextEnv:
    env.reset(seed=0)
    return env


def refused(env: TextEnv, message: str) -> None:
    with pytest.raises(ResetNeeded, match=f"^{message}$"):
        env.step("a")


@pytest.mark.parametrize("kind", [Counter, Longer, Mixed])
def test_a_step_needs_an_episode_that_is_on(kind: type[Counter]) -> None:
    env = kind()
    refused(env, r"call reset\(\) before a step")
    begun(env).step("a")
    env.close()
    refused(env, r"the environment is closed: call reset\(\) before a step")
    begun(env).step("a")


def test_after_the_end_only_a_reset_goes_on() -> None:
    env = begun(Counter())
    assert [env.step("a")[3] for _ in range(3)] == [False, False, True]
    refused(env, r"the episode has ended: call reset\(\) before a step")
    assert begun(env).step("a")[0] == "on"


def test_the_outermost_step_of_a_chain_says_whether_it_ends() -> None:
    env = begun(Longer())
    assert [env.step("a")[3] for _ in range(3)] == [False, False, True]  # Counter's own would have ended at the second
    refused(env, r"the episode has ended: .*")


def test_an_environment_that_begins_anew_by_itself_goes_on() -> None:
    env = begun(Renewing())
    assert [env.step("a")[3] for _ in range(6)] == [False, False, True] * 2


def test_a_reset_that_fails_leaves_no_episode_even_of_the_one_before() -> None:
    env = begun(Counter())
    with pytest.raises(RuntimeError, match="no such game"):
        env.reset(seed=13)
    refused(env, r"its reset failed: call reset\(\) before a step")


def test_a_step_that_raises_leaves_the_episode_on() -> None:
    env = begun(Counter())
    env.turns = None
    with pytest.raises(TypeError):
        env.step("a")
    env.turns = 0
    assert env.step("a")[0] == "on"


@pytest.mark.parametrize("kind", [Counter, Mixed])
@pytest.mark.parametrize("action", [None, b"a", 3, ["a"]])
def test_an_action_is_text(kind: type[Counter], action: Any) -> None:
    env = begun(kind())
    with pytest.raises(UserError, match=f"^an action is text, and .* is of type {type(action).__name__}$"):
        env.step(action)
    assert env.seen == []


def test_half_a_character_is_a_question_mark_and_a_whole_one_stays() -> None:
    env = begun(Counter())
    env.step("a\ud800\N{GRINNING FACE}")
    assert env.seen == ["a?\N{GRINNING FACE}"]


@pytest.mark.parametrize("seed", [7, np.int64(7), np.uint8(7)])
def test_a_seed_may_be_any_whole_number(seed: Any) -> None:
    env = Counter()
    env.reset(seed=seed)
    assert env.seed == 7
    assert type(env.seed) is int


@pytest.mark.parametrize(
    ("seed", "what"),
    [(-1, "below 0"), (1.0, "of type float"), ("1", "of type str"), (True, "of type bool"), (np.array([1]), "of type ndarray")],
)
def test_what_is_no_seed_is_refused_and_the_episode_goes_on(seed: Any, what: str) -> None:
    env = begun(Counter())
    with pytest.raises(UserError, match=f"^a seed is a whole number from 0 on, and .* is {what}$"):
        env.reset(seed=seed)
    assert env.step("a")[0] == "on"


def test_options_of_a_reset_are_a_mapping() -> None:
    with pytest.raises(UserError, match="options of a reset are a mapping, and 'x' is of type str"):
        Counter().reset(seed=0, options="x")


def test_an_option_of_a_wrong_type_is_refused_however_the_environment_is_made() -> None:
    with pytest.raises(UserError, match="Longer did not accept an option: 'limit' is 'ten' but must be a whole number"):
        Longer(limit="ten", other="ten")


def test_a_guarded_environment_can_be_sent_to_another_process() -> None:
    env = begun(Counter())
    env.step("a")
    copied = pickle.loads(pickle.dumps(env))
    assert [copied.step("a")[3] for _ in range(2)] == [False, True]
    refused(copied, r"the episode has ended: .*")
