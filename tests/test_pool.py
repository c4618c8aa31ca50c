"""Environments in slots: faults, reuse, and the expert's remembered episodes."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from agentdistill import environment
from agentdistill.environment import TextEnv
from agentdistill.errors import UserError
from agentdistill.pool import EnvironmentFault, EnvPool
from agentdistill.trajectory import ToolCall

Odd = SimpleNamespace


@pytest.fixture
def odd() -> Iterator[Odd]:
    """`lab/Odd-v0`, which does what a test sets under a method's name (`make` for `__init__`)."""
    does: Odd = SimpleNamespace(make=lambda env: None, reset=lambda env: ("go", {}), close=lambda env: None)

    class OddEnv(TextEnv):
        def __init__(self) -> None:
            does.make(self)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            self.steps = 0
            return does.reset(self)

        def step(self, action: str) -> Any:
            self.steps += 1
            if hasattr(does, "step"):
                return does.step(self)
            over = action in ("win", "lose", "spoil")
            return action, 0.0, over, False, {"success": action in ("win", "reach")}

        def expert_action(self) -> Any:
            return does.expert_action(self)

        def plan(self) -> Any:
            return does.plan(self)

        def random_action(self, rng: random.Random) -> Any:
            return does.random_action(self)

        def close(self) -> None:
            does.close(self)

        @property
        def system_prompt(self) -> Any:
            return does.system_prompt(self)

    environment.register("lab/Odd-v0", OddEnv)
    yield does
    environment.unregister("lab/Odd-v0")


def test_the_experts_episode_is_played_to_its_end_and_remembered() -> None:
    pool = EnvPool("lab/Guess-v0")
    actions = pool.expert_actions(5, 30)
    assert actions is not None
    assert int(actions[-1]) == random.Random(5).randrange(16)
    env = pool.env(0).unwrapped
    env.secret = 3  # played only once, so nobody sees this
    assert pool.expert_actions(5, 30) is actions


def test_an_expert_that_does_not_win_within_the_turn_limit_has_no_episode_to_replay() -> None:
    pool = EnvPool("lab/Guess-v0", {"size": 1000})
    assert pool.expert_actions(5, 3) is None
    assert len(pool.expert_actions(5, 30) or []) > 3


def test_an_expert_that_loses_has_no_episode_to_replay(odd: Odd) -> None:
    odd.expert_action = lambda env: "wait" if env.steps < 3 else "lose"
    assert EnvPool("lab/Odd-v0").expert_actions(5, 30) is None
    odd.expert_action = lambda env: "win"
    assert EnvPool("lab/Odd-v0").expert_actions(5, 30) == ["win"]
    odd.expert_action = lambda env: "reach" if not env.steps else "spoil"  # reached at first, lost again
    assert EnvPool("lab/Odd-v0").expert_actions(5, 30) is None


def test_an_environment_without_an_expert_has_no_expert_episode() -> None:
    assert EnvPool("lab/Mute-v0").expert_actions(5, 30) is None


def test_an_expert_that_raises_is_a_fault_with_one_sentence() -> None:
    with pytest.raises(UserError, match=r"'lab/Guess-v0' failed in expert_action\(\): KeyError: 'lost'"):
        EnvPool("lab/Guess-v0", {"fault": "expert"}).expert_actions(5, 30)


def test_a_fault_throws_the_environment_away_and_no_other() -> None:
    pool = EnvPool("lab/Guess-v0", {"fault": "raise"})
    kept, broken = pool.env(0), pool.env(1)
    pool.reset(1, 5)
    with pytest.raises(EnvironmentFault, match=r"step\('8'\): ValueError: broken pipe"):
        pool.step(1, "8")
    assert pool.env(0) is kept
    assert pool.env(1) is not broken


def test_an_environment_is_used_again_for_the_next_task() -> None:
    pool = EnvPool("lab/Guess-v0")
    env = pool.env(2)
    assert pool.reset(2, 5).task_id == "guess-5"
    assert pool.reset(2, 6).task_id == "guess-6"
    assert pool.env(2) is env


def test_success_is_what_info_says_or_else_a_rewarded_end() -> None:
    pool = EnvPool("lab/Guess-v0")
    pool.reset(0, 5)
    assert not pool.step(0, "99").success
    assert pool.step(0, str(random.Random(5).randrange(16))).success
    mute = EnvPool("lab/Mute-v0")
    mute.reset(0, 1)
    assert mute.step(0, "x").success


def test_an_unknown_environment_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no environment is registered as 'lab/Gues-v0'; did you mean 'lab/Guess-v0'\?"):
        EnvPool("lab/Gues-v0").env(0)


def test_an_option_the_environment_does_not_take_is_named() -> None:
    for option in ("colour", "env_id", "self"):
        with pytest.raises(UserError, match=rf"'lab/Guess-v0' did not accept env.options .*'{option}'"):
            EnvPool("lab/Guess-v0", {option: 3}).env(0)


def test_an_id_whose_module_does_not_exist_gives_one_sentence() -> None:
    with pytest.raises(UserError, match="'no_such_module:Env-v0' cannot be made"):
        EnvPool("no_such_module:Env-v0").env(0)


def leave(env: object) -> None:
    raise SystemExit(0)


def ask(pool: EnvPool, call: str) -> object:
    """Call what leads to an environment's method of that name."""
    if call == "make":
        return pool.env(0)
    pool.reset(0, 5)
    arguments = {"step": ["go"], "random_action": [random.Random(0)], "reset": [5]}.get(call, [])
    return getattr(pool, call)(0, *arguments)


@pytest.mark.parametrize("call", ["make", "reset", "step", "expert_action", "plan", "random_action", "system_prompt"])
def test_an_environment_that_leaves_the_process_is_at_fault_and_the_process_goes_on(odd: Odd, call: str) -> None:
    setattr(odd, call, leave)
    name = "__init__" if call == "make" else call
    with pytest.raises(EnvironmentFault, match=rf"^environment 'lab/Odd-v0' failed in {name}.*: SystemExit: 0$"):
        ask(EnvPool("lab/Odd-v0"), call)


def test_ctrl_c_inside_an_environment_stops_the_run(odd: Odd) -> None:
    def interrupt(env: object) -> None:
        raise KeyboardInterrupt

    odd.step = interrupt
    with pytest.raises(KeyboardInterrupt):
        ask(EnvPool("lab/Odd-v0"), "step")


def test_an_environment_that_leaves_in_close_is_warned_of_and_the_others_are_closed(odd: Odd) -> None:
    closed: list[object] = []

    def close(env: object) -> None:
        closed.append(env)
        raise SystemExit(0)

    odd.close = close
    pool = EnvPool("lab/Odd-v0")
    pool.env(0), pool.env(1)
    with pytest.warns(RuntimeWarning, match=r"'lab/Odd-v0' failed in close\(\): SystemExit: 0"):
        pool.close()
    assert len(closed) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pool.close()  # nothing is left to close


def test_a_fault_tells_of_a_close_that_failed_too(odd: Odd) -> None:
    odd.step = odd.close = leave
    with pytest.raises(EnvironmentFault, match=r"failed in step\('go'\): SystemExit: 0, and then in close\(\): SystemExit: 0$"):
        ask(EnvPool("lab/Odd-v0"), "step")


@pytest.mark.parametrize(
    ("call", "answer", "says"),
    [
        ("expert_action", 5, "expert_action(): the answer is of type int, not a string"),
        ("plan", ["look"], "plan(): the answer is of type list, not a string"),
        ("plan", "\ud800", "plan(): the answer is no valid Unicode (surrogates not allowed at character 0)"),
        ("random_action", None, "random_action(rng): the action is of type NoneType, not a string"),
        ("system_prompt", 7, "system_prompt: it is of type int, not a string"),
        ("system_prompt", "be \ud800", "system_prompt: it is no valid Unicode"),
        ("reset", ("go", None), "reset(seed=5): info is of type NoneType, not a dict"),
        ("reset", "go", "reset(seed=5): it returned a value of type str, not the 2 values observation, info"),
        ("reset", ("go", {"task_id": "\ud800"}), "reset(seed=5): info['task_id'] is no valid Unicode"),
        ("step", ("x", 0.0, False, {}), "step('go'): it returned 4 values, not the 5 values observation, reward, "),
        ("step", ("x", None, False, False, {}), "step('go'): TypeError: float()"),
        ("step", (b"x", 0.0, False, False, {}), "step('go'): the observation is of type bytes, not a string"),
        ("step", ("x", 0.0, False, False, []), "step('go'): info is of type list, not a dict"),
        ("step", ("x", 0.0, False, False, {"tool_calls": {}}), "info['tool_calls'] is of type dict, not a list of ToolCall"),
        ("step", ("x", 0.0, False, False, {"tool_calls": ["x"]}), "['tool_calls'] holds a value of type str, not a ToolCall"),
        ("step", ("x", 0.0, False, False, {"tool_calls": [ToolCall("a", {}, None, True)]}), "a result of type NoneType, not"),
    ],
)  # fmt: skip
def test_an_answer_of_a_wrong_kind_is_one_sentence_that_names_the_call(odd: Odd, call: str, answer: Any, says: str) -> None:
    setattr(odd, call, lambda env: answer)
    with pytest.raises(EnvironmentFault, match=re.escape(says)) as caught:
        ask(EnvPool("lab/Odd-v0"), call)
    assert str(caught.value).startswith("environment 'lab/Odd-v0' failed in ")


def test_what_an_environment_raises_is_told_in_one_bounded_line(odd: Odd) -> None:
    def explode(env: object) -> None:
        raise ValueError("no\nanswer \ud800 from\r\n the server " + "x" * 1_000_000)

    odd.step = explode
    with pytest.raises(EnvironmentFault) as caught:
        ask(EnvPool("lab/Odd-v0"), "step")
    said = str(caught.value)
    assert said.startswith("environment 'lab/Odd-v0' failed in step('go'): ValueError: no answer ? from the server xxx")
    assert said.endswith("x …")
    assert len(said) < 600
    assert len(said.splitlines()) == 1


def test_an_exception_that_cannot_be_printed_is_told_by_its_type(odd: Odd) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def explode(env: object) -> None:
        raise Mute

    odd.step = explode
    with pytest.raises(EnvironmentFault, match=r"step\('go'\): Mute$"):
        ask(EnvPool("lab/Odd-v0"), "step")


def test_a_sentence_of_the_environments_own_is_told_as_it_is(odd: Odd) -> None:
    def refuse(env: object) -> None:
        raise UserError("the game folder is full; make room")

    odd.reset = refuse
    with pytest.raises(EnvironmentFault, match=r"failed in reset\(seed=5\): the game folder is full; make room$"):
        EnvPool("lab/Odd-v0").reset(0, 5)
    odd.make = refuse
    with pytest.raises(UserError, match=r"^the game folder is full; make room$"):
        EnvPool("lab/Odd-v0").env(0)


def test_a_step_without_a_word_of_success_gives_none(odd: Odd) -> None:
    pool = EnvPool("lab/Odd-v0")
    for answer, success in (
        (("x", 0.0, False, False, {}), None),
        (("x", 1.0, False, False, {}), None),
        (("x", 0.0, True, False, {}), None),
        (("x", 1.0, True, False, {}), True),
        (("x", 1.0, True, False, {"success": False}), False),
        (("x", 0.0, False, False, {"success": True}), True),
    ):
        odd.step = lambda env, answer=answer: answer
        pool.reset(0, 5)
        assert pool.step(0, "go").success is success
