from __future__ import annotations

import random

import pytest

from agentdistill.envs.webshop import WebShopEnv
from tests.needs import needs_webshop


@pytest.fixture(scope="module")
def env() -> WebShopEnv:
    needs_webshop()
    return WebShopEnv(max_turns=200)


def play(env: WebShopEnv, seed: int, noise: float = 0.0) -> tuple[list[str], float]:
    """Play the expert, with random actions in between; the actions and the last reward."""
    rng, actions, score = random.Random(seed), [], 0.0
    env.reset(seed=seed)
    while (action := env.expert_action()) is not None:
        if rng.random() < noise:
            action = env.random_action(rng)
            assert action != env.expert_action()
        _, score, terminated, truncated, _ = env.step(action)
        actions.append(action)
        if terminated or truncated:
            break
    return actions, score


def test_the_expert_scores_on_the_test_split_what_it_did(env: WebShopEnv):
    scores = [play(env, seed)[1] for seed in env.task_seeds("test")[::4]]
    assert sum(scores) / len(scores) > 0.98
    assert sum(score == 1.0 for score in scores) > 0.93 * len(scores)


def test_the_expert_buys_within_the_usual_fifteen_turns(env: WebShopEnv):
    lengths = [len(play(env, seed)[0]) for seed in env.task_seeds("valid")[::10]]
    assert max(lengths) <= 15


def test_human_goals_are_bought_too(env: WebShopEnv):
    human = WebShopEnv(goals="human")
    scores = [play(human, seed)[1] for seed in human.task_seeds("test")]
    assert len(scores) == 13
    assert min(scores) > 0


def test_the_expert_recovers_from_random_actions(env: WebShopEnv):
    scores = {seed: play(env, seed)[1] for seed in env.task_seeds("train")[::150]}
    for seed, score in scores.items():
        assert play(env, seed, noise=0.4)[1] == score


def test_the_plan_is_what_the_expert_does(env: WebShopEnv):
    for seed in (0, 391, 700):
        actions, _ = play(env, seed)
        env.reset(seed=seed)
        assert env.plan() == ", ".join(action.removeprefix("<action>").removesuffix("</action>") for action in actions)


def test_a_product_that_no_search_finds_has_no_expert(env: WebShopEnv, monkeypatch: pytest.MonkeyPatch):
    env.reset(seed=3)
    monkeypatch.setattr(env.catalogue, "search", lambda query: ())
    assert env.expert_action() is None
    assert env.plan() is None
