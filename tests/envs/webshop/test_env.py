from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from agentdistill.environment import make, task_seeds
from agentdistill.envs.webshop import WebShopEnv
from agentdistill.envs.webshop.actions import can_click, parse
from agentdistill.errors import UserError
from tests.envs.webshop import shop
from tests.needs import needs_webshop


@pytest.fixture(scope="module", autouse=True)
def _real_parts() -> None:
    needs_webshop()


@pytest.fixture(scope="module")
def env() -> WebShopEnv:
    return WebShopEnv()


def record(env: WebShopEnv, seed: int) -> list[Any]:
    """Everything that a random episode shows."""
    rng = random.Random(seed)
    shown: list[Any] = [env.reset(seed=seed)]
    for _ in range(10):
        shown.append(env.step(env.random_action(rng)))
    return shown


def test_check_env_passes_on_rich_text():
    check_env(make("agentdistill/WebShop-v0", observation="text_rich", admissible=True).unwrapped)


def test_gymnasium_makes_it_with_nothing_imported():
    code = (
        "import gymnasium as gym; env = gym.make('agentdistill.envs:agentdistill/WebShop-v0');print(env.reset(seed=410)[0][:7])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "WebShop\n", done.stderr


def test_all_recorded_episodes_of_the_original_are_equal(env: WebShopEnv):
    recorded = shop.recorded("golden_episodes.jsonl.gz")
    assert len(recorded) == 20
    for episode in recorded:
        observation, info = env.reset(seed=episode["goal_index"])
        assert observation == episode["reset_obs"]
        assert {key: info[key] for key in episode["reset_available"]} == episode["reset_available"]
        for step in episode["steps"]:
            observation, reward, terminated, truncated, info = env.step(step["action"])
            assert (observation, reward, terminated, truncated) == (step["obs"], step["reward"], step["done"], False)
            assert info["success"] == (step["reward"] == 1.0)
            if step["available"] is not None:
                assert {key: info[key] for key in step["available"]} == step["available"]
        assert info["reward_parts"] == episode["reward_info"]


def test_splits_are_the_originals(env: WebShopEnv):
    assert env.task_seeds("test") == range(500)
    assert env.task_seeds("eval") == env.task_seeds("valid") == range(500, 1500)
    assert env.task_seeds("train") == range(1500, 6910)
    human = WebShopEnv(goals="human")
    assert [len(human.task_seeds(split)) for split in ("train", "valid", "test")] == [0, 0, 13]
    assert task_seeds(make("agentdistill/WebShop-v0"), "test") == list(range(500))


def test_a_reset_without_a_seed_takes_a_training_goal(env: WebShopEnv):
    env.reset(seed=1)
    drawn = [int(env.reset()[1]["task_id"].removeprefix("synthetic/")) for _ in range(50)]
    assert min(drawn) >= 1500
    assert len(set(drawn)) > 30
    assert WebShopEnv(goals="human").reset()[1]["task_id"].startswith("human/")


@pytest.mark.parametrize("observation", ["text", "text_rich"])
def test_the_same_seed_and_actions_give_the_same_bytes_in_any_environment(observation: str):
    env = WebShopEnv(observation=observation)
    first = record(env, 1600)
    record(env, 1601)
    assert record(env, 1600) == first
    assert record(WebShopEnv(observation=observation), 1600) == first


def test_episodes_played_at_once_do_not_disturb_each_other():
    envs = WebShopEnv(), WebShopEnv()
    alone = [record(env, seed) for env, seed in zip(envs, (7, 8), strict=True)]
    rngs = random.Random(7), random.Random(8)
    together: list[list[Any]] = [[env.reset(seed=seed)] for env, seed in zip(envs, (7, 8), strict=True)]
    for _ in range(10):
        for env, rng, shown in zip(envs, rngs, together, strict=True):
            shown.append(env.step(env.random_action(rng)))
    assert together == alone


@pytest.mark.parametrize(
    "before", [["search[rug for a room]"], ["search[rug for a room]", "click[next >]"], ["search[rug]", "click[b07fkgqkz1]"]]
)
def test_every_admissible_click_changes_what_is_shown(before: list[str]):
    env = WebShopEnv(observation="text_rich")

    def replay() -> tuple[str, list[str]]:
        env.reset(seed=410)
        for action in before:
            observation, _, _, _, info = env.step(action)
        return observation, info["admissible"]

    shown, admissible = replay()
    assert len(admissible) >= 12
    for action in admissible:
        replay()
        assert env.step(action)[0] != shown


def test_the_last_allowed_message_truncates_unless_it_buys():
    env = WebShopEnv(max_turns=3)
    env.reset(seed=391)
    assert env.step("search[rug]")[1:4] == (0.0, False, False)
    assert env.step("think[hello]")[1:4] == (0.0, False, False)
    assert env.step("nonsense")[1:4] == (0.0, False, True)
    env.reset(seed=391)
    for action in ("search[loafers]", "click[b07hp6lvrs]"):
        env.step(action)
    _, reward, terminated, truncated, info = env.step("<think>It fits.</think><action>click[Buy Now]</action>")
    assert (terminated, truncated, info["success"]) == (True, False, False)
    assert 0 < reward < 1
    assert info["admissible"] == []


def test_observations_list_the_actions_where_they_are_asked_for():
    env = WebShopEnv(admissible=True)
    text, info = env.reset(seed=0)
    assert info["admissible"] == ["search[<words>]"]
    assert text.endswith("\n\nAdmissible actions: search[<words>].")
    text, _, _, _, info = env.step("<think>rugs</think><action>search[rug]</action>")
    page, _, listed = text.rpartition("\n\n")
    assert listed == f"Admissible actions: {', '.join(info['admissible'])}."
    assert info["text"] == page.replace(f"Instruction: [SEP] {env.reset(seed=0)[1]['goal']} [SEP] ", "")
    assert info["command"] == "search[rug]"
    assert info["admissible"][:2] == ["click[back to search]", "click[next >]"]


def test_after_the_end_and_before_the_start_a_reset_is_needed():
    env = WebShopEnv()
    for call in (lambda: env.step("search[x]"), env.expert_action, env.plan):
        with pytest.raises(ResetNeeded):
            call()
    env.reset(seed=0)
    while (action := env.expert_action()) is not None:
        env.step(action)
    with pytest.raises(ResetNeeded, match="ended"):
        env.step("search[x]")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"goals": "humans"}, "'goals' is 'humans'; did you mean 'human'"),
        ({"observation": "html"}, "'observation' is 'html'; known: text, text_rich"),
        ({"max_turns": 0}, "'max_turns' is 0 but must be at least 1"),
        ({"folder": "/none"}, "'/none' holds neither"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        WebShopEnv(**options)


def test_unknown_splits_and_seeds_are_refused(env: WebShopEnv):
    with pytest.raises(UserError, match="no split 'tets'; did you mean 'test'"):
        env.task_seeds("tets")
    for seed in (6910, 1 << 70):
        with pytest.raises(UserError, match=f"no synthetic goal of seed {seed}"):
            env.reset(seed=seed)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz.fuzz", None)
    with pytest.raises(UserError, match=r"pip install 'agentdistill\[webshop\]'"):
        make("agentdistill/WebShop-v0")


def test_missing_data_is_named_with_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("AGENTDISTILL_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"webshop'; download .*, then run: agentdistill data import webshop path/"):
        WebShopEnv()


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ("search[Red Lamp]", ("search", "red lamp")),
        ("  click[Buy Now] \n", ("click", "buy now")),
        ("<think><action>search[a]</action>?</think><action>click[b]</action>", ("click", "b")),
        ("<action>search[a]", ("<action>search", "a")),
        ("Search[a]", ("Search", "a")),
        ("click[a] and more", ("click", "a")),
        ("click[a] click[b]", ("click[a] click", "b")),
        ("search[]", ("search[]", "")),
        ("search[a\nb]", ("search[a\nb]", "")),
        ("", ("", "")),
    ],
)
def test_the_action_is_in_the_last_tags_or_the_whole_message(message: str, action: tuple[str, str]):
    assert parse(message) == action


def test_an_action_is_what_the_originals_expression_matches():
    rng, original = random.Random(0), re.compile(r"(.+)\[(.+)\]")
    for _ in range(5_000):
        message = "".join(rng.choices(["[", "]", "a", "B", "\n", " ", "\u2028"], k=rng.randrange(12)))
        match = original.match(message.strip())
        assert parse(message) == ((match[1], match[2].lower()) if match else (message.strip(), ""))
    assert parse("search[" * 100_000)[1] == ""  # for which the expression takes minutes


def test_elements_with_brackets_cannot_be_clicked():
    assert can_click("size 5")
    assert not can_click("size [5]")
    assert not can_click("a\nb")
    assert not can_click("")
