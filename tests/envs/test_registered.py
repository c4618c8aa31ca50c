"""What holds of every built-in environment: the checker is content, and the same seed and actions give the same bytes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

from agentdistill import environment
from agentdistill.errors import UserError
from agentdistill.registration import BUILT_IN
from tests.needs import needs_environment

IDS = sorted(each.id for each in environment.catalogue() if each.source == BUILT_IN)
OPTIONS: dict[str, dict[str, Any]] = {
    "agentdistill/Tools-v0": {"tools": ["calculator"], "tasks": [{"question": "1 + 1?", "answer": 2}]},
}


@pytest.fixture(params=IDS)
def env_id(request: pytest.FixtureRequest) -> str:
    needs_environment(request.param)
    return str(request.param)


def played(env: gym.Env[str, str], seed: int, actions: list[str] | None) -> tuple[list[str], list[object]]:
    """The actions of an episode of the expert's, or those given, and everything that was answered to them."""
    observation, info = env.reset(seed=seed)
    said: list[object] = [observation, info["task_id"]]
    done: list[str] = []
    for turn in range(12):
        action = (environment.expert_action(env) or "look") if actions is None else actions[turn]
        answer = env.step(action)
        done.append(action)
        said.append((*answer[:4], answer[4].get("success"), answer[4].get("admissible")))
        if answer[2] or answer[3]:
            break
    return done, said


def test_the_checker_of_gymnasium_is_content(env_id: str) -> None:
    env = environment.make(env_id, **OPTIONS.get(env_id, {}))
    check_env(env.unwrapped)
    env.close()


def test_the_same_seed_and_actions_give_the_same_bytes(env_id: str) -> None:
    first, second = (environment.make(env_id, **OPTIONS.get(env_id, {})) for _ in range(2))
    for split, seeds in environment.splits(first).items():
        if not seeds:
            continue
        actions, said = played(first, seeds[0], None)
        played(second, seeds[-1], None)  # another episode before it leaves no trace
        assert played(second, seeds[0], actions)[1] == said, split
    first.close()
    second.close()


@pytest.mark.parametrize("module", ["agentdistill", "agentdistill.envs"])
def test_gymnasium_alone_makes_one_by_module_and_id(module: str) -> None:
    code = f"import gymnasium; env = gymnasium.make('{module}:agentdistill/Arithmetic-v0'); print(env.reset(seed=1)[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("What is")


def test_an_action_that_is_no_text_is_refused_in_a_sentence_and_half_a_character_is_played(env_id: str) -> None:
    env = environment.make(env_id, **OPTIONS.get(env_id, {}))
    env.reset(seed=environment.task_seeds(env, "test" if environment.splits(env)["test"] else "train")[0])
    for action in (None, b"look", 5, ["look"]):
        with pytest.raises(UserError, match=f"an action is text, and .* is of type {type(action).__name__}$"):
            env.step(action)  # type: ignore[arg-type]
        with pytest.raises(environment.EnvironmentFault, match="an action is text"):
            environment.step(env, action)  # type: ignore[arg-type]
    answer = environment.step(env, "look \ud800")
    assert isinstance(answer.observation, str)
    env.close()


def test_a_closed_environment_wants_a_reset_before_anything_else(env_id: str) -> None:
    env = environment.make(env_id, **OPTIONS.get(env_id, {}))
    seed = environment.task_seeds(env, "test" if environment.splits(env)["test"] else "train")[0]
    first = env.reset(seed=seed)[0]
    env.close()
    with pytest.raises((UserError, gym.error.ResetNeeded), match="reset"):
        env.step("look")
    assert env.reset(seed=seed)[0] == first
    env.close()
