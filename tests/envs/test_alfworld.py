from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from gymnasium.error import ResetNeeded

from agentdistill.environment import make, task_seeds
from agentdistill.envs.alfworld.env import ALFWorldEnv
from agentdistill.envs.alfworld.library import library
from agentdistill.envs.alfworld.official import write_games
from agentdistill.envs.alfworld.prompts import INSTRUCTIONS, command_of
from agentdistill.errors import UserError
from tests.needs import needs_alfworld

UNSEEN = 20_000


@pytest.fixture(scope="module", autouse=True)
def _real_parts() -> None:
    needs_alfworld()


@pytest.fixture(scope="module")
def env() -> ALFWorldEnv:
    return ALFWorldEnv()


def follow(env: ALFWorldEnv, seed: int) -> tuple[list[str], float, bool]:
    """Play the expert; its commands, the sum of rewards, and whether the last step won."""
    env.reset(seed=seed)
    commands, total, info = [], 0.0, {"success": False}
    while (action := env.expert_action()) is not None:
        _, reward, terminated, _, info = env.step(f"<think>I know.</think>{action}")
        commands.append(command_of(action))
        total += reward
        assert terminated == info["success"]
    return commands, total, bool(info["success"])


def record(env: ALFWorldEnv, seed: int) -> list[Any]:
    """Everything that a random episode shows."""
    rng = random.Random(seed)
    shown: list[Any] = [env.reset(seed=seed)]
    for _ in range(8):
        shown.append(env.step(rng.choice(shown[-1][-1]["admissible"])))
    return shown


@pytest.mark.parametrize(("split", "count"), [("train", 5), ("valid_seen", 5), ("valid_unseen", 5), ("train_hard", 2)])
def test_walkthroughs_win_with_reward_one_at_their_last_command(env: ALFWorldEnv, split: str, count: int):
    seeds = env.task_seeds(split)
    for seed in seeds[:: len(seeds) // count][:count]:
        commands, total, won = follow(env, seed)
        assert (total, won) == (1.0, True)
        assert ", ".join(commands) == env.plan()


def test_a_task_is_of_the_split_its_seed_belongs_to(env: ALFWorldEnv):
    for split in ("train", "valid_seen", "valid_unseen"):
        _, info = env.reset(seed=env.task_seeds(split)[-1])
        assert info["task_id"].startswith(f"{split}/")


def test_the_same_seed_and_commands_give_the_same_bytes_in_any_environment(env: ALFWorldEnv):
    first = record(env, UNSEEN + 7)
    record(env, UNSEEN + 60)
    assert record(env, UNSEEN + 7) == first
    assert record(ALFWorldEnv(), UNSEEN + 7) == first


def test_episodes_played_at_once_do_not_disturb_each_other(env: ALFWorldEnv):
    other = ALFWorldEnv()
    alone = [record(each, seed) for each, seed in ((env, 5), (other, UNSEEN))]
    rngs = random.Random(5), random.Random(UNSEEN)
    together: list[list[Any]] = [[env.reset(seed=5)], [other.reset(seed=UNSEEN)]]
    for _ in range(8):
        for each, rng, shown in zip((env, other), rngs, together, strict=True):
            shown.append(each.step(rng.choice(shown[-1][-1]["admissible"])))
    assert together == alone


def test_an_unknown_command_costs_a_turn_and_changes_nothing():
    env = ALFWorldEnv(max_turns=2, admissible=False)
    _, before = env.reset(seed=UNSEEN)
    expected = env.expert_action()
    step = env.step("<think>Up.</think><action>fly</action>")
    info = {"success": False, "well_formed": True, "command": "fly"}
    info |= {"admissible": before["admissible"], "text": "Nothing happens."}
    assert step == ("Nothing happens.", 0.0, False, False, info)
    assert env.expert_action() == expected
    assert env.step("")[:4] == ("Nothing happens.", 0.0, False, True)


def test_a_win_at_the_last_turn_is_not_a_truncation():
    env = ALFWorldEnv()
    env.max_turns = len(follow(env, UNSEEN)[0])
    env.reset(seed=UNSEEN)
    while (action := env.expert_action()) is not None:
        last = env.step(action)
    assert last[1:4] == (1.0, True, False)


def test_every_observation_lists_the_admissible_commands_unless_told_not_to(env: ALFWorldEnv):
    text, info = env.reset(seed=UNSEEN)
    assert INSTRUCTIONS in text
    assert text.endswith(f"\n\nAdmissible commands: {', '.join(info['admissible'])}.")
    assert {"look", "inventory"} < set(info["admissible"])
    assert "help" not in info["admissible"]
    text, _, _, _, info = env.step("look")
    assert text.endswith(f"Admissible commands: {', '.join(info['admissible'])}.")
    assert env.system_prompt == ""


def test_a_closed_environment_can_be_reset_and_needs_it():
    env = ALFWorldEnv()
    with pytest.raises(ResetNeeded):
        env.step("look")
    env.reset(seed=UNSEEN)
    env.close()
    env.close()
    with pytest.raises(ResetNeeded):
        env.expert_action()
    assert follow(env, UNSEEN)[2]


def test_seeds_are_listed_by_the_engine_of_the_project():
    assert task_seeds(make("agentdistill/ALFWorld-v0"), "test") == list(range(UNSEEN, UNSEEN + 134))


def test_unknown_names_and_values_of_options_are_refused(env: ALFWorldEnv):
    with pytest.raises(UserError, match="no split 'valid_unsen'; did you mean 'valid_unseen'"):
        env.task_seeds("valid_unsen")
    for options, message in (
        ({"max_turns": 0}, "'max_turns' is 0"),
        ({"preset": "tcd"}, "no preset 'tcd'; did you mean 'tcod'"),
        ({"expert": "handcodet"}, "no expert 'handcodet'; did you mean 'handcoded'"),
        ({"shuffle": "yes"}, "'shuffle' is 'yes' but must be true or false or a whole number"),
        ({"types": ["heal"]}, "no task type 'heal'; did you mean 'heat'"),
        ({"typs": ["heat"]}, "typs.*; did you mean 'types'"),
    ):
        with pytest.raises(UserError, match=message):
            make("agentdistill/ALFWorld-v0", **options)


def test_the_start_tells_the_task_and_the_words_of_the_game(env: ALFWorldEnv):
    text, info = env.reset(seed=UNSEEN)
    assert info["task_id"] == "valid_unseen/look_at_obj_in_light-AlarmClock-None-DeskLamp-308/trial_T20190908_222917_366542"
    assert (info["goal"], info["task_type"]) == ("examine the alarmclock with the desklamp", "look_at_obj_in_light")
    assert info["text"].startswith("-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room.")
    assert text.startswith(f"{info['text']}\n\nYour task is to: examine the alarmclock with the desklamp.")
    assert info["instructions"] == INSTRUCTIONS


def test_task_types_choose_among_the_games_of_a_split():
    env = ALFWorldEnv(types=["examine"])
    seeds = env.task_seeds("valid_unseen")
    assert len(seeds) == 18
    assert env.reset(seed=seeds[-1])[1]["task_type"] == "look_at_obj_in_light"
    assert env.reset()[1]["task_id"].startswith("train/look_at_obj_in_light-")


def test_verl_agents_preset_pays_ten_and_takes_a_tenth_for_a_malformed_message():
    env = ALFWorldEnv(preset="verl-agent")
    text, info = env.reset(seed=UNSEEN)
    assert "The admissible actions are: ['" in text
    assert text.endswith(f"\n\n{info['instructions']}")
    assert env.max_turns == 50
    assert env.step("look")[1] == -0.1
    rewards = []
    while (action := env.expert_action()) is not None:
        rewards.append(env.step(f"<think>I know.</think>{action}")[1])
    assert rewards == [0.0] * (len(rewards) - 1) + [10.0]


def test_parts_of_a_preset_can_be_chosen_one_by_one():
    env = ALFWorldEnv(7, preset="verl-agent", prompt="tcod", reward={"won": 2, "malformed": -1})
    text, info = env.reset(seed=UNSEEN)
    assert text.startswith(f"{info['text']}\n\nYour task is to: {info['goal']}.\n\n{INSTRUCTIONS}")
    assert (env.max_turns, env.step("look")[1]) == (7, -1.0)


def test_shuffled_games_number_things_anew_and_can_still_be_won(env: ALFWorldEnv):
    seeds = range(UNSEEN + 50, UNSEEN + 53)
    plain = [env.reset(seed=seed)[1]["text"] for seed in seeds]
    shuffled = ALFWorldEnv(shuffle=True)
    plans = []
    for seed in seeds:
        commands, total, won = follow(shuffled, seed)
        assert (total, won) == (1.0, True)
        assert ", ".join(commands) == shuffled.plan()
        plans.append(shuffled.plan())
    assert plans != [", ".join(library().game(seed).walkthrough) for seed in seeds]
    texts = [shuffled.reset(seed=seed)[1]["text"] for seed in seeds]
    assert texts == [ALFWorldEnv(shuffle=True).reset(seed=seed)[1]["text"] for seed in seeds]
    assert [env.reset(seed=seed)[1]["text"] for seed in seeds] == plain


def test_one_episode_can_be_shuffled_by_an_option_of_reset(env: ALFWorldEnv):
    def first(shuffle: int | bool | None) -> list[Any]:
        options = None if shuffle is None else {"shuffle": shuffle}
        return [env.reset(seed=UNSEEN + 50, options=options)[1]["admissible"], env.plan()]

    plain = first(None)
    plans = [first(number)[1] for number in (1, 2, 3)]
    assert len({plain[1], *plans}) > 1
    assert [first(number)[1] for number in (1, 2, 3)] == plans
    assert first(False) == first(None) == plain


def test_a_random_action_is_an_admissible_command(env: ALFWorldEnv):
    _, info = env.reset(seed=UNSEEN)
    assert {command_of(env.random_action(random.Random(seed))) for seed in range(20)} < set(info["admissible"])


def test_an_official_folder_plays_the_same_episodes(env: ALFWorldEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_games(tmp_path / "json_2.1.1", [library().game(seed) for seed in (UNSEEN, UNSEEN + 1)])
    expected = [record(env, seed) for seed in (UNSEEN, UNSEEN + 1)]
    monkeypatch.delenv("AGENTDISTILL_DATA")
    official = make("agentdistill/ALFWorld-v0", data=str(tmp_path)).unwrapped
    assert list(official.task_seeds("test")) == [UNSEEN, UNSEEN + 1]
    assert [record(official, seed) for seed in (UNSEEN, UNSEEN + 1)] == expected


def test_missing_data_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AGENTDISTILL_DATA")
    with pytest.raises(
        UserError, match="AGENTDISTILL_DATA is not set; set AGENTDISTILL_DATA to the folder that holds alfworld/"
    ):
        make("agentdistill/ALFWorld-v0")


def test_a_game_that_cannot_be_read_ends_the_one_before_it(tmp_path: Path):
    gone, _ = write_games(tmp_path / "json_2.1.1", [library().game(seed) for seed in (UNSEEN, UNSEEN + 1)])
    env = ALFWorldEnv(data=str(tmp_path))
    env.reset(seed=UNSEEN + 1)
    gone.unlink()
    with pytest.raises(UserError, match=f"the game '{gone}' cannot be read: No such file"):
        env.reset(seed=UNSEEN)
    with pytest.raises(ResetNeeded):
        env.step("look")
    assert follow(env, UNSEEN + 1)[2]
