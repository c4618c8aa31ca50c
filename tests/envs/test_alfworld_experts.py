from __future__ import annotations

import random
from pathlib import Path

import pytest

from agentdistill.envs.alfworld.env import ALFWorldEnv
from agentdistill.envs.alfworld.prompts import command_of
from agentdistill.pool import EnvPool
from tests.needs import needs_alfworld

UNSEEN = 20_000


@pytest.fixture(scope="module", autouse=True)
def _real_parts() -> None:
    needs_alfworld()


@pytest.fixture(scope="module")
def env() -> ALFWorldEnv:
    return ALFWorldEnv()


@pytest.fixture(scope="module")
def handcoded() -> ALFWorldEnv:
    return ALFWorldEnv(max_turns=200, admissible=False, expert="handcoded")


def commands(env: ALFWorldEnv, seed: int) -> tuple[list[str], bool]:
    """What the expert does in a game, and whether that wins."""
    env.reset(seed=seed)
    played, won = [], False
    while (action := env.expert_action()) is not None:
        played.append(command_of(action))
        won = env.step(action)[4]["success"]
    return played, won


def test_the_walkthrough_goes_on_after_looking_about_and_stops_off_its_path(env: ALFWorldEnv) -> None:
    env.reset(seed=UNSEEN)
    first = env.expert_action()
    for command in ("look", "inventory", "help"):
        env.step(command)
    assert env.expert_action() == first
    _, _, _, _, info = env.step(first or "")
    env.step(next(each for each in info["admissible"] if each.startswith("examine ")))
    assert env.expert_action() is not None
    env.step(next(each for each in info["admissible"] if each.startswith("go to ") and each not in env.plan()))
    assert env.expert_action() is None


def test_the_handcoded_expert_begins_with_look_and_wins_most_games(handcoded: ALFWorldEnv) -> None:
    played = [commands(handcoded, seed) for seed in range(UNSEEN, UNSEEN + 134, 34)]
    assert {each[0] for each, _ in played} == {"look"}
    assert sum(won for _, won in played) >= len(played) // 2


def test_the_handcoded_expert_does_as_alfreds_own_wrapper_has_it_do(handcoded: ALFWorldEnv, tmp_path: Path) -> None:
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredExpert
    from alfworld.agents.expert import handcoded_expert
    from textworld.envs.pddl import PddlEnv

    from agentdistill.envs.alfworld.library import library
    from agentdistill.envs.alfworld.memo import replaced
    from agentdistill.envs.alfworld.official import write_games

    game = library().game(UNSEEN + 60)
    own, _ = commands(handcoded, UNSEEN + 60)
    (path,) = write_games(tmp_path, [game])
    infos = textworld.EnvInfos(won=True, admissible_commands=True, facts=True)
    stock = AlfredExpert(AlfredDemangler(PddlEnv(infos)))
    with replaced(handcoded_expert, "random", random.Random(game.id)):
        stock.load(str(path))
        state, said = stock.reset(), []
        while not state["won"] and len(said) < len(own):
            said.append(state["extra.expert_plan"][0])
            state = stock.step(said[-1])[0]
    assert said == own


def test_the_handcoded_expert_is_the_same_in_every_episode_and_finds_back(handcoded: ALFWorldEnv) -> None:
    first, won = commands(handcoded, UNSEEN + 9)
    assert won
    assert commands(handcoded, UNSEEN + 9) == (first, True)
    handcoded.reset(seed=UNSEEN + 9)
    rng, won = random.Random(0), False
    for _ in range(3):
        handcoded.step(handcoded.random_action(rng))
    for _ in range(100):
        action = handcoded.expert_action()
        if action is None:
            break
        won = handcoded.step(action)[4]["success"]
    assert won


def test_no_expert_has_anything_to_do_once_the_game_is_won(env: ALFWorldEnv) -> None:
    assert commands(env, UNSEEN + 3)[1]
    assert env.expert_action() is None


def test_both_experts_give_a_pool_the_actions_that_win() -> None:
    for expert in ("walkthrough", "handcoded"):
        pool = EnvPool("agentdistill/ALFWorld-v0", {"expert": expert, "max_turns": 200})
        found = pool.expert_actions(UNSEEN, 200)
        pool.close()
        assert found
        assert all(action.startswith("<action>") for action in found)
