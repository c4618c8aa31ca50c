"""TextWorld-Express: folds, parameters, gold paths, and a Java process that is reused and gone."""

from __future__ import annotations

import os
import random
import signal
import sys
from typing import Any

import psutil
import pytest

from agentdistill.environment import make, splits
from agentdistill.envs.textworld_express import TextWorldExpressEnv
from agentdistill.envs.textworld_express.games import GAMES
from agentdistill.episode import episode
from agentdistill.errors import UserError
from agentdistill.pool import EnvPool, Workers
from tests.needs import needs_textworld_express


@pytest.fixture(scope="module", autouse=True)
def _real_parts() -> None:
    needs_textworld_express()


def gold(env: TextWorldExpressEnv, seed: int) -> tuple[list[str], list[Any]]:
    """The expert's commands, and everything that was answered to them."""
    said: list[Any] = [env.reset(seed=seed)]
    done: list[str] = []
    while (command := env.expert_action()) is not None:
        done.append(command)
        said.append(env.step(command))
    return done, said


@pytest.mark.parametrize("game", GAMES)
def test_gold_paths_win_every_game_and_are_the_same_in_another_process(game: str) -> None:
    env = TextWorldExpressEnv(game, max_turns=200, reward="score")
    seeds = [0, 1, 2, 10_000, 20_000]
    paths = [gold(env, seed) for seed in seeds]
    for done, said in paths:
        assert said[-1][2]
        assert said[-1][4]["success"]
        assert sum(answer[1] for answer in said[1:]) == pytest.approx(1)
        assert done[0] in said[0][1]["admissible"]
        assert said[0][0] == f"{said[0][1]['goal']}\n\n{said[0][1]['text']}"
        assert said[0][1]["admissible"] == sorted(said[0][1]["admissible"])
    if game in ("coin", "cookingworld", "twc"):  # whose gold paths are walks at random
        env.close()
        assert [gold(env, seed) for seed in reversed(seeds)] == paths[::-1]
    env.close()


def test_folds_are_disjoint_and_seeds_outside_them_are_refused() -> None:
    env = TextWorldExpressEnv("coin")
    found = splits(env)
    assert [len(found[name]) for name in ("train", "valid", "test")] == [1000, 1000, 1000]
    assert len({seed for seeds in found.values() for seed in seeds}) == 3000
    assert env.task_seeds("dev") == env.task_seeds("valid")
    with pytest.raises(UserError, match="no game with seed 5000; seeds are 0 to 999"):
        env.reset(seed=5000)


def test_parameters_shape_the_game() -> None:
    small = TextWorldExpressEnv("coin", numLocations=2, includeDoors=False, numDistractorItems=0)
    assert len(gold(small, 3)[0]) < 8
    memory = TextWorldExpressEnv("simonsays", gameLength=3, numDistractors=1, memorization=True)
    assert len(gold(memory, 3)[0]) == 3
    small.close()
    memory.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"game": "coins"}, "no game 'coins'; did you mean 'coin'?"),
        ({"game": "coin", "numLocation": 3}, "no parameter 'numLocation'; did you mean 'numLocations'?"),
        ({"game": "sorting", "numLocations": 3}, "game 'sorting' has no parameter 'numLocations'; it has none"),
        ({"game": "coin", "numLocations": 12}, "'numLocations' is 12 but must be from 1 to 11"),
        ({"game": "coin", "includeDoors": "yes"}, "'includeDoors' is 'yes' but must be from 0 to 1"),
        ({"reward": "wins"}, "did you mean 'win'"),
        ({"max_turns": 0}, "must be at least 1"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        make("agentdistill/TextWorldExpress-v0", **options)
    assert sentence in str(refused.value)


def test_a_command_that_makes_no_sense_costs_a_turn_and_leaves_the_expert_be() -> None:
    env = TextWorldExpressEnv("coin", max_turns=4)
    env.reset(seed=3)
    wish = env.expert_action()
    for nonsense in ("fly", "🙂\nx", "\ud800"):
        text, reward, terminated, truncated, info = env.step(nonsense)
        assert text.startswith("Unknown action")
        assert (reward, terminated, truncated, info["success"]) == (0.0, False, False, False)
        assert env.expert_action() == wish
    assert env.step("inventory")[3]  # the fourth turn
    assert env.expert_action() is None
    admissible = env.reset(seed=3)[1]["admissible"]
    assert env.random_action(random.Random(0)) in admissible
    env.close()


def test_one_process_is_reused_until_close_and_started_anew_by_reset() -> None:
    env = TextWorldExpressEnv("sorting")
    env.reset(seed=0)
    pid = env._engine.java.pid
    env.reset(seed=1)
    assert env._engine.java.pid == pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"Java process has ended; reset\(\) starts another"):
        env.step("look around")
    env.reset(seed=0)
    again = env._engine.java.pid
    env.close()
    env.close()
    assert not psutil.pid_exists(again)


def test_workers_play_as_this_process_does() -> None:
    found = []
    for workers in (None, Workers(1)):
        pool = EnvPool("agentdistill/TextWorldExpress-v0", {"game": "twc"}, workers=workers)
        found.append(pool.play(episode(seed, 50) for seed in (0, 10_000)))
        pool.close()
    assert found[0] == found[1]
    assert all(each.success for each in found[0])


def test_a_missing_package_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textworld_express.constants", None)
    with pytest.raises(UserError, match=r"install it with: pip install 'agentdistill\[textworld-express\]'"):
        TextWorldExpressEnv("coin").reset(seed=0)
