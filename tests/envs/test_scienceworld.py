from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gymnasium.error import ResetNeeded

from agentdistill.environment import make
from agentdistill.envs.scienceworld import engine
from agentdistill.envs.scienceworld.engine import UNKNOWN
from agentdistill.envs.scienceworld.env import ScienceWorldEnv
from agentdistill.envs.scienceworld.prompts import INSTRUCTIONS, command_of
from agentdistill.envs.scienceworld.tasks import SPLITS, TASKS, TCOD_TEST, VARIATIONS, seed_of, task_of
from agentdistill.errors import UserError
from tests.needs import needs_scienceworld


@pytest.fixture(scope="module", autouse=True)
def _real_parts() -> None:
    needs_scienceworld()


@pytest.fixture(scope="module")
def env() -> Iterator[ScienceWorldEnv]:
    made = ScienceWorldEnv(max_turns=200)
    yield made
    made.close()


def follow(env: ScienceWorldEnv, seed: int) -> tuple[list[Any], list[float]]:
    """Play the gold path: everything that was shown, and the rewards."""
    shown: list[Any] = [env.reset(seed=seed)]
    over = False
    while not over and (action := env.expert_action()) is not None:
        shown.append(env.step(f"<think>I know.</think>{action}"))
        over = shown[-1][2] or shown[-1][3]
    return shown, [each[1] for each in shown[1:]]


# An electrical one, one of growing, of finding, and the longest of all.
@pytest.mark.parametrize(
    ("task", "variation"),
    [("power-component", 3), ("grow-plant", 70), ("find-animal", 250),
     ("inclined-plane-friction-unnamed-surfaces", 130)],
)  # fmt: skip
def test_gold_paths_reach_a_score_of_100(env: ScienceWorldEnv, task: str, variation: int):
    shown, rewards = follow(env, seed_of(task, variation))
    first, last = shown[0][1], shown[-1]
    assert (first["task"], first["variation"], first["task_id"]) == (task, variation, f"{task}/{variation}")
    assert first["task_type"] == task
    assert (last[2], last[3], last[4]["success"], last[4]["score"]) == (True, False, True, 100)
    assert first["score"] / 100 + sum(rewards) == pytest.approx(1)
    assert [each[4]["success"] for each in shown[1:-1]] == [False] * (len(shown) - 2)


def test_the_same_seed_and_commands_give_the_same_bytes_in_any_process(env: ScienceWorldEnv):
    seed = seed_of("boil", 1)
    first = follow(env, seed)
    follow(env, seed_of("find-plant", 7))
    assert follow(env, seed) == first
    other = ScienceWorldEnv(max_turns=200)
    assert follow(other, seed) == first
    other.close()


def test_texts_are_the_simulators_own_up_to_the_order_of_what_is_listed(env: ScienceWorldEnv):
    from scienceworld import ScienceWorldEnv as Stock

    stock = Stock()
    stock.load("find-animal", 4, "easy")
    text, _ = stock.reset()
    _, info = env.reset(seed=seed_of("find-animal", 4))
    assert sorted(info["text"].split("\n")) == sorted(text.split("\n"))
    assert info["objects"] == sorted(set(stock.get_possible_objects()))
    assert info["templates"] == sorted(stock.get_possible_actions())
    assert info["goal"] == stock.get_task_description()
    assert info["notes"] == f"Objects: {', '.join(info['objects'])}."
    assert info["instructions"].startswith(f"{INSTRUCTIONS}\n\nCommands, where OBJ is an object: activate OBJ, ")
    while (action := env.expert_action()) is not None:
        text, raw, over, theirs = stock.step(command_of(action))
        _, reward, terminated, _, info = env.step(action)
        assert info["command"] == command_of(action)
        assert sorted(info["text"].split("\n")) == sorted(text.split("\n"))
        assert (info["score"], round(reward * 100), terminated) == (theirs["score"], raw, over)
    stock.close()


def test_splits_are_the_simulators_own_and_tcods(env: ScienceWorldEnv):
    server = env._engine.java.server
    for task in ("identify-life-stages-1", "lifespan-longest-lived", "use-thermometer"):
        server.load(task, 0, "", False)
        assert server.getTaskMaxVariations(task) == VARIATIONS[task]
        for split, own in (
            ("train", server.getVariationsTrain),
            ("dev", server.getVariationsDev),
            ("test", server.getVariationsTest),
        ):
            assert list(SPLITS[split](task)) == list(own())
    assert sorted(server.getTaskNames()) == sorted(TASKS)
    seeds = {split: list(env.task_seeds(split)) for split in SPLITS}
    assert {split: len(each) for split, each in seeds.items()} == {
        "train": 3592, "valid": 1796, "dev": 1796, "test": 1819, "tcod_train": 2294, "tcod_test": 1308,
    }  # fmt: skip
    assert sorted(seeds["train"] + seeds["valid"] + seeds["test"]) == list(range(7207))
    assert [task_of(seed) for seed in seeds["train"][:30]] == [(task, 0) for task in TASKS]
    assert {task_of(seed)[0] for seed in seeds["tcod_test"]} == TCOD_TEST
    assert [task_of(seed)[0] for seed in seeds["tcod_train"][:17]] == [task for task in TASKS if task not in TCOD_TEST]
    assert max(task_of(seed)[1] for seed in seeds["tcod_train"] if task_of(seed)[0] == "boil") == 14


@pytest.mark.parametrize("task", ["find-animal"])
def test_rewards_are_paid_step_by_step_or_at_the_end(env: ScienceWorldEnv, task: str):
    seed = seed_of(task, 0)
    steps = len(follow(env, seed)[1])
    for name in ("score", "best"):
        env._reward = name
        assert follow(env, seed)[1] == [0.0] * (steps - 1) + [1.0]
    env.max_turns = 4  # cut off: what was reached is paid
    shown, rewards = follow(env, seed)[0][:5], follow(env, seed)[1][:4]
    assert shown[-1][3]
    assert rewards == [0.0] * 3 + [shown[-1][4]["score"] / 100]
    env.max_turns = 200
    env._reward = "delta"


def test_a_wrong_focus_ends_the_episode_with_minus_100(env: ScienceWorldEnv):
    paid = {}
    for name in ("delta", "score", "best"):
        env._reward = name
        start = env.reset(seed=seed_of("find-animal", 0))[1]["score"]
        _, paid[name], terminated, _, info = env.step("focus on agent")
        assert (terminated, info["success"], info["score"]) == (True, False, -100)
        assert env.expert_action() is None
    env._reward = "delta"
    assert paid == {"delta": -1 - start / 100, "score": -1.0, "best": start / 100}


def test_asking_the_expert_changes_nothing_of_what_follows(env: ScienceWorldEnv):
    def shown(asked: bool) -> list[Any]:
        engine._gold.clear()
        said: list[Any] = [env.reset(seed=seed_of("grow-plant", 2))]  # its things are alike, and told apart by where they are
        if asked:
            env.expert_action()
        return said + [env.step("look around") for _ in range(2)]

    assert shown(asked=True) == shown(asked=False)


def test_a_command_that_is_not_understood_costs_a_turn_and_leaves_the_gold_path_open(env: ScienceWorldEnv):
    env.max_turns = 2
    env.reset(seed=seed_of("boil", 2))
    gold = env.expert_action()
    for odd, over in (("<action>fly \ud800 to\nthe moon</action>", False), ("", True)):
        text, reward, terminated, truncated, info = env.step(odd)
        assert text.startswith(UNKNOWN)
        assert (reward, terminated, truncated, info["text"]) == (0.0, False, over, UNKNOWN)
        assert env.expert_action() == gold
    env.max_turns = 200
    assert env.plan().startswith(command_of(gold or ""))


def test_the_expert_can_be_asked_in_the_middle_and_is_silent_off_its_path(env: ScienceWorldEnv):
    seed = seed_of("find-animal", 9)
    commands = [command_of(each) for each in follow_commands(env, seed)]
    engine._gold.clear()
    env.reset(seed=seed)
    before = [env.step(command) for command in commands[:3]][-1]
    assert command_of(env.expert_action() or "") == commands[3]  # found by beginning again; the episode is where it was
    assert env.step("look around")[4]["score"] == before[4]["score"]
    assert env.expert_action() is None


def follow_commands(env: ScienceWorldEnv, seed: int) -> list[str]:
    env.reset(seed=seed)
    return [f"<action>{command}</action>" for command in env.plan().split(", ")]


def test_simplifications_change_the_world(env: ScienceWorldEnv):
    plain = ScienceWorldEnv(simplify=None, templates=False, objects=False)
    easier = ScienceWorldEnv(simplify=["noElectricalAction", "openDoors"])
    plain._engine = easier._engine = env._engine  # a process of their own would take them seconds to start
    text, info = plain.reset(seed=0)
    assert "teleport OBJ" not in info["templates"]
    assert "connect OBJ to OBJ" in info["templates"]
    assert "(that is closed)" in text
    assert text.endswith(INSTRUCTIONS)
    assert "Objects:" not in plain.step("inventory")[0]
    text, info = easier.reset(seed=0)
    assert "(that is closed)" not in text
    assert "connect OBJ to OBJ" not in info["templates"]
    assert "Commands, where OBJ is an object: " in text
    assert text.endswith(f"Objects: {', '.join(info['objects'])}.")
    assert "connect OBJ to OBJ" in easier.reset(seed=seed_of("power-component", 0))[1]["templates"]


def test_unknown_names_and_values_of_options_are_refused(env: ScienceWorldEnv):
    for split, message in (("tran", "no split 'tran'; did you mean 'train'"),):
        with pytest.raises(UserError, match=message):
            env.task_seeds(split)
    with pytest.raises(UserError, match="seed 7207; seeds go from 0 to 7206"):
        env.reset(seed=7207)
    with pytest.raises(ResetNeeded):
        env.step("look around")
    with pytest.raises(UserError, match="'tcod_test' has no variation of boil"):
        ScienceWorldEnv(tasks="boil").task_seeds("tcod_test")
    for options, message in (
        ({"max_turns": 0}, "'max_turns' is 0"),
        ({"tasks": ["boi"]}, "no task 'boi'; did you mean 'boil'"),
        ({"tasks": []}, "'tasks' is empty"),
        ({"simplify": "eazy"}, "no simplification 'eazy'; did you mean 'easy'"),
        ({"reward": "deltas"}, "no reward 'deltas'; did you mean 'delta'"),
        ({"templats": True}, "templats.*; did you mean 'templates'"),
    ):
        with pytest.raises(UserError, match=message):
            make("agentdistill/ScienceWorld-v0", **options)
