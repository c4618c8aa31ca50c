from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import agentdistill as ad
from agentdistill.envs.tool import ToolEnv, load_tasks
from agentdistill.errors import UserError
from agentdistill.toolcall import format_call
from agentdistill.trajectory import ToolCall


def convert(amount: float, unit: str) -> float:
    """Convert an amount into metres."""
    return amount * {"km": 1000.0, "mile": 1609.344}[unit]


CALL = format_call("convert", {"amount": 2, "unit": "km"})
ANSWER = r"It is \boxed{2000}."
TASKS = [{"question": f"How many metres are {n} km?", "answer": n * 1000} for n in range(20)]


def make(**options: Any) -> ToolEnv:
    env = ToolEnv(**({"tools": [convert], "tasks": TASKS} | options))
    env.reset(seed=2)
    return env


@pytest.fixture
def registered():
    ad.register("lab/Units-v0", tools=[convert], tasks=TASKS, grade=ad.graders.number)
    yield "lab/Units-v0"
    del gym.registry["lab/Units-v0"]


def test_an_environment_registered_in_one_line_passes_check_env(registered: str):
    env = ad.make(registered)
    check_env(env.unwrapped)
    assert [tool.schema["function"]["name"] for tool in env.unwrapped.tools] == ["convert"]  # type: ignore[attr-defined]


def test_options_override_what_was_registered(registered: str):
    env = ad.make(registered, max_turns=1)
    env.reset(seed=0)
    assert env.step("hm")[3]


def test_an_episode_calls_answers_and_is_rewarded():
    env = make()
    assert env.reset(seed=2) == ("How many metres are 2 km?", {"task_id": "2", "task_type": ""})
    called = env.step(CALL)
    call = ToolCall("convert", {"amount": 2, "unit": "km"}, "2000.0", True)
    shown = "<tool_response>\n2000.0\n</tool_response>"
    assert called == (shown, 0.0, False, False, {"success": False, "tool_calls": [call], "malformed_calls": 0})
    assert env.step(ANSWER) == ("Correct.", 1.0, True, False, {"success": True, "tool_calls": [], "malformed_calls": 0})


def test_a_wrong_answer_ends_the_episode_without_reward():
    observation, reward, terminated, truncated, info = make().step(r"\boxed{3}")
    assert (observation, reward, terminated, truncated, info["success"]) == ("Wrong.", 0.0, True, False, False)


def test_several_calls_get_a_response_each():
    observation, *_, info = make().step(CALL + "\n" + format_call("convert", {"amount": 1, "unit": "mile"}))
    assert observation.count("<tool_response>") == 2
    assert [call.result for call in info["tool_calls"]] == ["2000.0", "1609.344"]


def test_failing_unknown_and_malformed_calls_are_answered_and_counted():
    text = format_call("convert", {"amount": 1, "unit": "inch"}) + format_call("convrt", {}) + "<tool_call>{</tool_call>"
    observation, reward, terminated, truncated, info = make().step(text)
    assert (reward, terminated, truncated, info["malformed_calls"]) == (0.0, False, False, 1)
    assert [(call.name, call.ok) for call in info["tool_calls"]] == [("convert", False), ("convrt", False), ("", False)]
    assert "KeyError: 'inch'" in observation
    assert "there is no tool 'convrt'; did you mean 'convert'?" in observation
    assert "tool call 1" not in observation
    assert "tool call 3 is not valid JSON" in observation


def test_a_message_with_neither_is_told_what_is_expected():
    observation, _, terminated, *_ = make().step("hello")
    assert observation == r"Call a tool, or give your final answer as \boxed{answer}."
    assert not terminated
    assert make(tools=[]).step("hello")[0] == r"Give your final answer as \boxed{answer}."


def test_a_call_and_an_answer_in_one_message_are_both_taken():
    observation, reward, terminated, _, info = make().step(CALL + ANSWER)
    assert observation == "<tool_response>\n2000.0\n</tool_response>\nCorrect."
    assert (reward, terminated, len(info["tool_calls"])) == (1.0, True, 1)


def test_answers_inside_thinking_or_arguments_do_not_count():
    assert not make().step(rf"<think>{ANSWER}</think>")[2]
    assert not make().step(format_call("convert", {"amount": 1, "unit": ANSWER}))[2]


def test_the_turn_limit_truncates_but_an_answer_on_the_last_turn_terminates():
    env = make(max_turns=2)
    assert env.step("a")[2:4] == (False, False)
    assert env.step("b")[2:4] == (False, True)
    env.reset(seed=2)
    env.step("a")
    assert env.step(ANSWER)[2:4] == (True, False)


def test_observations_stay_inside_the_observation_space():
    def flood() -> str:
        """Say a lot."""
        return "x" * 10_000_000

    env = make(tools=[ad.tool(max_chars=50_000)(flood)])
    observation, *_ = env.step(format_call("flood", {}) * 10)
    assert env.observation_space.contains(observation)
    assert len(observation) > 60_000


def test_the_system_prompt_holds_no_tool_descriptions_and_can_be_replaced():
    assert "convert" not in make().system_prompt
    assert r"\boxed" in make().system_prompt
    assert make(system_prompt="").system_prompt == ""


def test_seeds_beyond_the_tasks_wrap_and_resets_without_one_draw():
    env = make()
    assert env.reset(seed=22)[0] == env.reset(seed=2)[0]
    env.reset(seed=0)
    drawn = {env.reset()[0] for _ in range(30)}
    assert len(drawn) > 5


def test_splits_without_a_field_are_80_10_10_by_position_and_disjoint():
    env = make()
    splits = [list(env.task_seeds(name)) for name in ("train", "valid", "test")]
    assert [len(split) for split in splits] == [16, 2, 2]
    assert sorted(seed for split in splits for seed in split) == list(range(20))


def test_splits_follow_the_tasks_field_where_given():
    tasks = [{"question": "q", "answer": 1, "split": name} for name in ("test", "train", "hard")]
    env = make(tasks=tasks)
    assert [list(env.task_seeds(name)) for name in ("train", "test", "hard")] == [[1], [0], [2]]
    with pytest.raises(UserError, match="no task in split 'valid'"):
        env.task_seeds("valid")
    with pytest.raises(UserError, match="no split 'trian'; did you mean 'train'"):
        env.task_seeds("trian")


def test_the_expert_follows_the_demonstration_whatever_comes_between():
    env = make(tasks=[{"question": "q", "answer": 2000, "demonstration": [CALL, ANSWER]}])
    env.reset(seed=0)
    assert env.plan() == f"{CALL}\n{ANSWER}"
    assert env.expert_action() == CALL
    env.step("something else")
    assert env.expert_action() == CALL
    env.step("my words " + CALL.replace(": ", ":"))
    assert env.expert_action() == ANSWER
    assert env.step(ANSWER)[4]["success"]
    assert env.expert_action() is None
    env.reset(seed=0)
    assert env.expert_action() == CALL


def test_a_plan_comes_from_the_task_and_is_none_without_one():
    env = make(tasks=[{"question": "q", "answer": 1, "plan": "think"}, {"question": "q", "answer": 1}])
    env.reset(seed=0)
    assert (env.plan(), env.expert_action()) == ("think", None)
    env.reset(seed=1)
    assert env.plan() is None


def test_tasks_come_from_a_json_lines_file(tmp_path: Path):
    path = tmp_path / "units.jsonl"
    rows = [{"id": "a", "question": "é?", "answer": 1, "subject": "x"}, {"question": "b\u2028?", "answer": "2"}]
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    tasks = load_tasks(path)
    assert [(task.id, task.question, task.answer) for task in tasks] == [("a", "é?", 1), ("1", "b\u2028?", "2")]
    assert make(tasks=str(path)).reset(seed=0) == ("é?", {"task_id": "a", "task_type": ""})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no tasks"),
        ('{"question": "q", "answer": 1}\n{"question"', "units.jsonl:2 is not JSON"),
        ('{"quesiton": "q", "answer": 1}', "units.jsonl:1 has no field 'question'; did you mean 'quesiton'"),
        ('{"question": 3, "answer": 1}', "units.jsonl:1: field 'question'"),
        ("[1]", "units.jsonl:1: "),
        ('{"question": "q", "answer": 1, "id": 7}\n{"question": "q", "answer": 1, "id": "7"}', "'7' occurs twice"),
    ],
)
def test_bad_task_files_are_refused_by_file_and_line(tmp_path: Path, content: str, said: str):
    path = tmp_path / "units.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        load_tasks(path)


def test_a_missing_or_binary_file_is_a_user_error(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_tasks(tmp_path / "none.jsonl")
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_tasks(tmp_path / "b")


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(UserError, match="two tools have one name"):
        make(tools=[convert, convert])


def test_stepping_before_reset_is_refused():
    with pytest.raises(ResetNeeded):
        ToolEnv(tools=[convert], tasks=TASKS).step("x")


def test_an_answer_that_the_grader_cannot_read_is_wrong_and_told_once():
    rows = [{"question": "2 + 1?", "answer": 3}]
    env = ToolEnv(tasks=rows, grade=lambda answer, expected: int(answer) == expected)
    env.reset(seed=0)
    with pytest.warns(RuntimeWarning, match=r"the grader raised ValueError: .* on the answer 'three', which counts as wrong"):
        _, reward, terminated, _, info = env.step(r"\boxed{three}")
    assert (reward, terminated, info["success"]) == (0.0, True, False)
    env.reset(seed=0)
    with warnings.catch_warnings(action="error"):
        assert env.step(r"\boxed{four}")[1] == 0.0
    env.reset(seed=0)
    assert env.step(r"\boxed{3}")[1] == 1.0
