from __future__ import annotations

import random
import re
from typing import Any

import pytest
from gymnasium.utils.env_checker import check_env

import agentdistill as ad
from agentdistill.environment import expert_action, make, task_seeds
from agentdistill.envs.arithmetic import ArithmeticEnv
from agentdistill.envs.arithmetic.env import LEVELS, OBSERVATIONS
from agentdistill.envs.expert import call_for
from agentdistill.errors import UserError
from agentdistill.graders import final_answer
from agentdistill.toolcall import format_call

CALLS = {1: {1}, 2: {1}, 3: {2, 3}, 4: {4, 5}, 5: {2, 3}, 6: {4, 5}}


def play(env: ArithmeticEnv, seed: int, noise: float = 0.0) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Play the expert, with random actions in between; the moves with their observations, and the last info."""
    rng = random.Random(seed)
    env.reset(seed=seed)
    moves = []
    while True:
        action = env.random_action(rng) if rng.random() < noise else env.expert_action()
        observation, _, terminated, truncated, info = env.step(action)
        moves.append((action, observation))
        if terminated or truncated:
            return moves, info


@pytest.mark.parametrize("level", LEVELS)
def test_check_env_passes_at_every_level(level: int):
    for observation in OBSERVATIONS:
        check_env(make("agentdistill/Arithmetic-v0", level=level, observation=observation).unwrapped)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_the_expert_solves_every_question_of_every_split_with_the_calls_of_its_level(level: int, observation: str):
    env = ArithmeticEnv(level=level, observation=observation)
    seeds = [*list(env.task_seeds("train"))[::50], *env.task_seeds("valid"), *env.task_seeds("test")]
    for seed in seeds:
        moves, info = play(env, seed)
        assert info["success"]
        assert len(moves) - 1 in CALLS[level]
        assert [action for action, _ in moves] == env.task(seed).demonstration


@pytest.mark.parametrize("level", LEVELS)
def test_the_expert_recovers_from_random_actions(level: int):
    env = ArithmeticEnv(level=level, max_turns=40)
    assert all(play(env, seed, noise=0.5)[1]["success"] for seed in range(100))


def test_the_expert_of_an_interpreter_prints_the_expression():
    assert call_for("python", "floor(sqrt(17))") == format_call(
        "python", {"code": "from math import floor, sqrt\nprint(floor(sqrt(17)))"}
    )
    assert call_for("calculator", "1 + 2") == format_call("calculator", {"expression": "1 + 2"})


def test_the_compact_rendering_is_the_same_question_in_signs_with_bare_results():
    env = ArithmeticEnv(level=3, observation="compact")
    assert env.reset(seed=1)[0] == "54, * 4, * 7"
    assert ArithmeticEnv(level=3).reset(seed=1)[0] == "Start with 54. Multiply by 4. Multiply by 7. What is the result?"
    assert env.step(str(env.expert_action()))[0] == "216"
    assert (env.system_prompt, env.tools) == ("", [])
    assert env.step(r"\boxed{1512}")[0] == "Correct."


def test_stories_name_their_numbers_and_have_many_wordings():
    for level in (5, 6):
        env = ArithmeticEnv(level=level)
        tasks = [env.task(seed) for seed in range(300)]
        assert len({re.sub(r"\d+", "#", task.question) for task in tasks}) > 150
        for task in tasks:
            given = set(re.findall(r"\d+", task.question)) | {step.result for step in task.steps}
            assert all(set(re.findall(r"\d+", step.expression)) <= given for step in task.steps)


def test_the_expert_goes_on_from_results_reached_in_another_way():
    env = ArithmeticEnv(level=4)
    steps = env.task(0).steps
    env.reset(seed=0)
    env.step(format_call("calculator", {"expression": f"{steps[1].result} + 0"}))
    assert env.expert_action() == format_call("calculator", {"expression": steps[2].expression})
    env.step(format_call("calculator", {"expression": steps[-1].result}))
    assert env.expert_action() == rf"\boxed{{{steps[-1].result}}}"


def test_random_actions_never_answer_and_are_not_the_experts():
    env, rng = ArithmeticEnv(level=3), random.Random(0)
    kinds = set()
    for seed in range(200):
        env.reset(seed=seed)
        action = env.random_action(rng)
        assert final_answer(action) is None
        assert action != env.expert_action()
        calls = env.step(action)[4]["tool_calls"]
        kinds.add((len(calls), bool(calls and calls[0].ok), bool(calls and calls[0].name)))
    assert kinds == {(1, True, True), (1, False, True), (1, False, False), (0, False, False)}


@pytest.mark.parametrize("level", LEVELS)
def test_questions_of_the_splits_are_disjoint_as_seeds_and_as_texts(level: int):
    env = ArithmeticEnv(level=level)
    seeds = {name: env.task_seeds(name) for name in ("train", "valid", "test")}
    assert [len(seeds[name]) for name in seeds] == [10_000, 200, 500]
    texts = {name: {env.task(seed).question for seed in list(seeds[name])[:1500]} for name in seeds}
    for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not set(seeds[a]) & set(seeds[b])
        assert not texts[a] & texts[b]


def test_questions_are_the_same_for_a_seed_and_differ_between_levels():
    questions = [[ArithmeticEnv(level=level).reset(seed=5)[0] for level in LEVELS] for _ in range(2)]
    assert questions[0] == questions[1]
    assert len(set(questions[0])) == len(LEVELS)


def test_a_seeds_question_never_changes_between_versions():
    assert ArithmeticEnv(level=1).reset(seed=20_000) == ("What is 98 + 8?", {"task_id": "level1/20000", "task_type": ""})


def test_the_plan_shows_the_working_and_the_answer():
    env = ArithmeticEnv(level=1)
    env.reset(seed=20_000)
    assert env.plan() == "Use the calculator for 98 + 8 = 106. The answer is 106."


def test_the_calculator_tool_is_exposed_with_its_schema():
    env = ad.make("agentdistill/Arithmetic-v0")
    assert [tool.schema["function"]["name"] for tool in env.unwrapped.tools] == ["calculator"]  # type: ignore[attr-defined]
    env.reset(seed=0)
    assert expert_action(env)
    assert len(task_seeds(env, "test")) == 500


@pytest.mark.parametrize("options", [{"observation": "compct"}, {"tools": ["calculater"]}, {"tools": []}])
def test_an_unknown_observation_or_tool_is_refused_with_what_there_is(options: dict[str, Any]):
    with pytest.raises(UserError, match=r"compact|'calculator'"):
        make("agentdistill/Arithmetic-v0", **options)


def test_the_former_name_is_the_same_environment():
    assert isinstance(make("agentdistill/Calculator-v0").unwrapped, ArithmeticEnv)


@pytest.mark.parametrize("level", [0, 7, "hard"])
def test_an_unknown_level_is_refused(level: Any):
    with pytest.raises(UserError, match=r"levels are 1 to 6|'level' is 'hard' but must be a whole number"):
        make("agentdistill/Arithmetic-v0", level=level)


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        ArithmeticEnv().task_seeds("tset")


def test_the_expert_speaks_the_call_format_it_is_given():
    env = ArithmeticEnv(level=1, call_format="react")
    env.reset(seed=20_000)
    assert str(env.expert_action()).startswith("Action: calculator")
    for call_format in ("json", "react", "action"):
        env = ArithmeticEnv(level=4, call_format=call_format, max_turns=30)
        assert all(play(env, seed, noise=0.2)[1]["success"] for seed in range(20))
