"""Environments: the contract's defaults, what strangers lack, and answers of a wrong kind."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdistill import environment
from agentdistill.environment import EnvironmentFault, TextEnv, UnicodeText, pick_split
from agentdistill.errors import UserError


@given(st.text(max_size=40), st.integers(0, 40))
def test_the_space_of_text_holds_any_script_up_to_its_length(text: str, limit: int) -> None:
    assert UnicodeText(limit).contains(text) == (len(text) <= limit)
    assert not UnicodeText(limit).contains(3)


def test_samples_of_the_space_are_seeded_and_inside() -> None:
    first, second = UnicodeText(seed=3), UnicodeText(seed=3)
    said = [first.sample() for _ in range(5)]
    assert said == [second.sample() for _ in range(5)]
    assert all(first.contains(text) for text in said)
    assert len(set(said)) > 1
    assert UnicodeText(5) == UnicodeText(5) != UnicodeText(6)


def test_the_default_splits_are_disjoint() -> None:
    splits = [set(TextEnv().task_seeds(name)) for name in ("train", "valid", "test")]
    assert [len(s) for s in splits] == [10_000, 200, 500]
    assert not splits[0] & splits[1] | splits[0] & splits[2] | splits[1] & splits[2]


def test_an_unknown_split_names_the_nearest() -> None:
    with pytest.raises(UserError, match="TextEnv has no split 'tran'; did you mean 'train'"):
        TextEnv().task_seeds("tran")
    assert pick_split({"a": 3}, "a", "x") == 3


def test_an_environment_of_a_stranger_gets_the_defaults() -> None:
    env = environment.make("lab/Mute-v0")
    assert environment.system_prompt(env) == ""
    assert environment.expert_action(env) is None
    assert environment.plan(env) is None
    assert len(environment.task_seeds(env, "valid")) == 200
    with pytest.raises(UserError, match="MuteEnv has no split 'x'"):
        environment.task_seeds(env, "x")


def test_the_kind_of_task_is_optional_but_has_to_be_text() -> None:
    class Typed(TextEnv):
        kind: Any = "heat"

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
            return "look", {"task_id": "a", "task_type": self.kind}

    env = Typed()
    assert environment.reset(env, 0).task_type == "heat"
    env.kind = 3
    with pytest.raises(EnvironmentFault, match=r"info\['task_type'\]"):
        environment.reset(env, 0)
    assert environment.reset(environment.make("lab/Mute-v0"), 0).task_type == ""


def test_what_an_environment_offers_is_found_through_wrappers() -> None:
    env = gym.wrappers.TimeLimit(environment.make("lab/Guess-v0", system="Hello"), 5)
    env.reset(seed=5)
    assert environment.system_prompt(env) == "Hello"
    assert environment.expert_action(env) == "8"
    assert environment.plan(env).startswith("say ")


def answering(seeds: object) -> gym.Env[str, str]:
    """An environment whose `task_seeds` gives this, or raises it."""

    class Env(TextEnv):
        def task_seeds(self, split: str) -> Any:
            if isinstance(seeds, BaseException):
                raise seeds
            return seeds

    return Env()


@pytest.mark.parametrize("seeds", [range(3), (0, 1, 2), np.arange(3), iter([0, np.int32(1), np.uint8(2)])])
def test_seeds_may_be_any_whole_numbers_and_come_out_as_pythons_own(seeds: object) -> None:
    found = environment.task_seeds(answering(seeds), "train")
    assert found == [0, 1, 2]
    assert {type(seed) for seed in found} == {int}


@pytest.mark.parametrize(
    ("seeds", "says"),
    [
        (None, "it returned a value of type NoneType, not a sequence of whole numbers"),
        (["a", "b"], "the seed 'a' is of type str, not a whole number"),
        ("abc", "it returned a value of type str, not a sequence of whole numbers"),
        ([0, 1.5], "the seed 1.5 is of type float, not a whole number"),
        (np.array([0.0]), "the seed np.float64(0.0) is of type float64, not a whole number"),
        ([0, 2**70], f"the seed {2**70} is not between 0 and 2^63"),
        ([-1], "the seed -1 is not between 0 and 2^63"),
        (RuntimeError("db\ndown"), "RuntimeError: db down"),
        (SystemExit(0), "SystemExit: 0"),
        ((1 // 0 for _ in "x"), "ZeroDivisionError: integer division or modulo by zero"),
    ],
)
def test_seeds_that_are_none_are_one_sentence(seeds: object, says: str) -> None:
    for ask in (lambda env: environment.task_seeds(env, "train"), environment.splits):
        with pytest.raises(EnvironmentFault, match=re.escape(f"environment 'Env' failed in task_seeds('train'): {says}")):
            ask(answering(seeds))
        if not isinstance(seeds, list | tuple | str | BaseException | None):
            break  # a generator gives its fault once


def test_a_split_that_an_environment_refuses_is_its_own_sentence_and_no_fault() -> None:
    env = answering(UserError("Env has no split 'train'; it is a test set"))
    with pytest.raises(UserError, match=r"^Env has no split 'train'; it is a test set$") as caught:
        environment.task_seeds(env, "train")
    assert not isinstance(caught.value, EnvironmentFault)
    assert environment.splits(env) == {"train": [], "valid": [], "test": []}


@pytest.mark.parametrize("won", [True, np.True_, 1, 1.0, np.int64(1)])
def test_success_is_a_truth_value(won: object) -> None:
    env = finishing(True, {"success": won})
    assert environment.step(env, "x").success is True


@pytest.mark.parametrize("won", [float("nan"), "False", 0.3, None, [1], 2, np.float64("nan")])
def test_what_python_would_take_for_success_is_a_fault(won: object) -> None:
    with pytest.raises(EnvironmentFault, match=r"info\['success'\] is .*, which is neither true nor false"):
        environment.step(finishing(True, {"success": won}), "x")
    if won is not None:
        with pytest.raises(EnvironmentFault, match=r"terminated is .*, which is neither true nor false"):
            environment.step(finishing(won, {}), "x")


def test_what_a_view_may_show_is_carried_and_none_is_as_good_as_absent() -> None:
    given = {"text": "bare", "admissible": ("go", "look"), "notes": "dark", "command": "go", "goal": None}
    answer = environment.step(finishing(True, given), "x")
    assert (answer.text, answer.admissible, answer.notes, answer.command) == ("bare", ["go", "look"], "dark", "go")
    assert answer.bare == "bare"
    first = environment.reset(starting({"goal": "win", "instructions": "so", "admissible": []}), 3)
    assert (first.goal, first.instructions, first.admissible, first.text, first.bare) == ("win", "so", [], None, "start")
    plain = environment.step(finishing(True, {}), "x")
    assert (plain.goal, plain.text, plain.admissible, plain.command, plain.bare) == (None, None, None, None, "over")


@pytest.mark.parametrize(
    ("info", "says"),
    [
        ({"text": 7}, r"info\['text'\] is of type int, not a string"),
        ({"notes": "\ud800"}, r"info\['notes'\] is no valid Unicode"),
        ({"admissible": "go"}, r"info\['admissible'\] is of type str, not a list of strings"),
        ({"admissible": ["go", 3]}, r"a command in info\['admissible'\] is of type int, not a string"),
    ],
)
def test_what_a_view_cannot_show_is_a_fault(info: dict[str, Any], says: str) -> None:
    with pytest.raises(EnvironmentFault, match=says):
        environment.step(finishing(True, info), "x")
    with pytest.raises(EnvironmentFault, match=says):
        environment.reset(starting(info), 3)


@pytest.mark.parametrize("key", ["goal", "instructions"])
def test_a_goal_and_instructions_are_text(key: str) -> None:
    with pytest.raises(EnvironmentFault, match=rf"info\['{key}'\] is of type list, not a string"):
        environment.reset(starting({key: []}), 3)


def starting(info: dict[str, Any]) -> TextEnv:
    """An environment whose reset answers with this."""

    class Starts(TextEnv):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
            return "start", info

    return Starts()


def finishing(terminated: Any, info: dict[str, Any]) -> TextEnv:
    """An environment whose step answers with these."""

    class Ends(TextEnv):
        def step(self, action: str) -> tuple[str, float, Any, bool, dict[str, Any]]:
            return "over", 0.0, terminated, False, info

    return Ends()
