import random

import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from agentdistill.environment import make, task_seeds
from agentdistill.envs.textworld import TextWorldEnv
from agentdistill.errors import UserError
from tests.needs import needs

needs("textworld")

CHALLENGES = [
    {"challenge": "cooking"},
    {"challenge": "cooking", "go": 6, "recipe": 3, "take": 2},
    {"challenge": "cooking", "go": 6, "recipe": 3, "take": 3, "drop": True},
    {"challenge": "cooking", "recipe": 1, "take": 1, "drop": True},
    {"challenge": "cooking", "open": False, "cook": False, "cut": False},
    {"challenge": "simple"},
    {"challenge": "simple", "rewards": "dense", "goal": "detailed"},
    {"challenge": "coin_collector", "level": 110},
    {"challenge": "treasure_hunter", "level": 5},
    {"challenge": "treasure_hunter", "level": 13},
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTDISTILL_CACHE", str(folder))
        yield folder


def play(env, seed, actions=None, noise=0.0, rng=None):
    """Observations, rewards and actions of one episode by the expert (or given actions), with random ones mixed in."""
    observations, rewards, played = [env.reset(seed=seed)[0]], [], []
    rng = rng or random.Random(seed)
    for turn in range(1000):
        if actions is not None:
            action = actions[turn]
        else:
            action = env.random_action(rng) if rng.random() < noise else env.expert_action()
        assert action is not None, f"the expert has nothing to do in seed {seed} after {played}"
        observation, reward, terminated, truncated, info = env.step(action)
        observations.append(observation)
        rewards.append(reward)
        played.append(action)
        if terminated or truncated:
            return observations, rewards, played, info["success"], terminated
    raise AssertionError("no end")


@pytest.mark.parametrize("observation", ["compact", "facts"])
def test_gymnasium_checker_accepts_the_environment(observation):
    check_env(make("agentdistill/TextWorld-v0", observation=observation).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("options", CHALLENGES, ids=str)
def test_expert_wins_every_game(options):
    env = TextWorldEnv(**options)
    for seed in range(1000, 1008):
        *_, success, _ = play(env, seed)
        assert success, seed


@pytest.mark.parametrize("options", CHALLENGES, ids=str)
def test_expert_wins_from_any_state_that_is_not_lost(options):
    env = TextWorldEnv(**options, max_turns=1000)
    ends = []
    for seed in range(1000, 1010):
        *_, success, terminated = play(env, seed, noise=0.3)
        assert terminated
        assert success or env.play.lost, seed
        ends.append(success)
    assert any(ends)


def test_expert_acts_the_same_whatever_the_unseen_part_of_the_game_is():
    env = TextWorldEnv(go=6)
    env.reset(seed=1001)
    before = env.expert_action()
    engine = env.engine
    for fact in [f for f in engine.facts.named("in") if f[1] not in engine.seen and f[1] in engine.game.names]:
        engine.facts.discard(fact)
        engine.facts.add(("on", fact[1], "s_0"))
    assert env.expert_action() == before


def test_recipe_is_shown_to_the_student_before_the_expert_uses_it():
    env = TextWorldEnv()
    for seed in range(1000, 1020):
        observations, _, actions, *_ = play(env, seed)
        looked = actions.index("examine cookbook")
        recipe = observations[looked + 1]
        foods = [env.engine.game.names[i.food] for i in env.engine.recipe]
        assert all(food in recipe for food in foods)
        assert not any(action.startswith(("take", "cook", "dice", "chop", "slice")) for action in actions[:looked])


@pytest.mark.parametrize("observation", ["compact", "facts"])
def test_same_seed_and_actions_give_the_same_text(observation):
    first = TextWorldEnv(go=6, observation=observation)
    observations, rewards, actions, *_ = play(first, 1003, noise=0.2, rng=random.Random(1))
    again = play(TextWorldEnv(go=6, observation=observation), 1003, actions=actions)
    assert (observations, rewards) == again[:2]


def test_different_seeds_give_different_games():
    env = TextWorldEnv()
    assert len({env.reset(seed=seed)[0] for seed in range(1000, 1020)}) > 15


def test_reset_without_a_seed_draws_training_games():
    env = TextWorldEnv()
    env.reset(seed=7)
    drawn = [env.reset()[1]["task_id"] for _ in range(5)]
    assert len(set(drawn)) > 1
    assert all(1000 <= int(task.split("-")[-1]) < 1800 for task in drawn)


def test_splits_are_disjoint_and_of_the_documented_size():
    env = TextWorldEnv()
    splits = [set(task_seeds(env, name)) for name in ("train", "valid", "test")]
    assert [len(split) for split in splits] == [800, 128, 256]
    assert len(set.union(*splits)) == 800 + 128 + 256


def test_first_observation_states_the_goal():
    assert TextWorldEnv().reset(seed=1000)[0].startswith("cook the recipe\n")
    assert TextWorldEnv("coin_collector").reset(seed=1000)[0].startswith("take coin\n")
    assert "Check the cookbook" in TextWorldEnv(observation="facts").reset(seed=1000)[0]
    assert "take coin" in TextWorldEnv("coin_collector", observation="facts").reset(seed=1000)[0]
    assert "on stove" in TextWorldEnv("simple").reset(seed=1000)[0]
    assert "on stove" not in TextWorldEnv("simple", goal="none").reset(seed=1000)[0]


@pytest.mark.parametrize("observation", ["compact", "facts"])
def test_the_goal_is_also_told_apart_from_what_is_seen(observation):
    for challenge in ("cooking", "coin_collector"):
        text, info = TextWorldEnv(challenge, observation=observation).reset(seed=1000)
        assert info["goal"]
        assert "".join(text.split()) == "".join((info["goal"] + info["text"]).split())
        assert info["goal"] not in info["text"]
    assert TextWorldEnv("simple", goal="none").reset(seed=1000)[1].keys() == {"task_id"}


@pytest.mark.parametrize("action", ["", "fly", "take", "take unicorn", "take knife from moon", "cook", "🙂 " * 50, "a\nb"])
@pytest.mark.parametrize("observation", ["compact", "facts"])
def test_invalid_action_costs_a_turn_and_changes_nothing(action, observation):
    env = TextWorldEnv(observation=observation)
    env.reset(seed=1000)
    before = sorted(env.engine.facts)
    text, reward, terminated, truncated, info = env.step(action)
    assert 0 < len(text) < 60
    assert (reward, terminated, truncated, info["success"]) == (0.0, False, False, False)
    assert sorted(env.engine.facts) == before


def test_reward_is_one_at_the_winning_step_only():
    _, rewards, *_ = play(TextWorldEnv(), 1000)
    assert rewards == [0.0] * (len(rewards) - 1) + [1.0]


def test_score_rewards_come_along_the_way_and_sum_to_one():
    _, rewards, *_ = play(TextWorldEnv(reward="score"), 1000)
    assert sum(rewards) == pytest.approx(1.0)
    assert sum(reward > 0 for reward in rewards) > 3


def test_spoiling_an_ingredient_loses_at_once():
    env = TextWorldEnv()
    env.reset(seed=1000)
    for action in ["open fridge", "take red tuna from fridge", "take knife from counter"]:
        env.step(action)
    text, reward, terminated, _, info = env.step("chop red tuna with knife")
    assert (text, reward, terminated, info["success"]) == ("you lose", 0.0, True, False)
    assert env.expert_action() is None


def test_meal_needs_every_ingredient_processed():
    env = TextWorldEnv(observation="facts")
    env.reset(seed=1000)
    assert env.step("prepare meal")[0] == "You still miss something."
    for action in ["open fridge", "take red tuna", "take red bell pepper"]:
        env.step(action)
    assert env.step("prepare meal")[0] == "Something still needs to be cooked."


def test_episode_is_truncated_at_max_turns():
    env = TextWorldEnv(max_turns=3)
    env.reset(seed=1000)
    assert [env.step("look")[3] for _ in range(3)] == [False, False, True]


def test_admissible_commands_are_listed_only_when_asked_for():
    env = TextWorldEnv(admissible=True)
    _, info = env.reset(seed=1000)
    assert {"examine cookbook", "open fridge", "take knife from counter"} <= set(info["admissible"])
    assert "take knife from counter" not in env.step("take knife from counter")[4]["admissible"]
    assert "admissible" not in TextWorldEnv().reset(seed=1000)[1]


def test_every_admissible_command_is_carried_out():
    env = TextWorldEnv(go=6, drop=True)
    env.reset(seed=1002)
    for command in env.engine.admissible():
        assert env.engine.copy().step(command).kind != "invalid", command


def test_plan_wins_when_followed():
    env = TextWorldEnv(go=6)
    env.reset(seed=1004)
    *_, success, _ = play(env, 1004, actions=env.plan().split(", "))
    assert success


def test_plan_does_not_disturb_the_game():
    env = TextWorldEnv()
    env.reset(seed=1000)
    env.step("open fridge")
    before, plan = sorted(env.engine.facts), env.plan()
    assert sorted(env.engine.facts) == before
    assert plan.startswith("examine cookbook, open fridge")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"challenge": "cookin"}, "did you mean 'cooking'"),
        ({"recipee": 2}, "did you mean 'recipe'"),
        ({"recipe": 9}, "'recipe' is 9 but must be one of 1, 2, 3, 4, 5"),
        ({"recipe": True}, "'recipe' is True"),
        ({"recipe": 1, "take": 2}, "'take' is 2 but must be between 0 and 'recipe'"),
        ({"cook": "yes"}, "must be true or false"),
        ({"split": "tests"}, "must be one of train, valid, test, null"),
        ({"challenge": "coin_collector", "level": 250}, "at most 100"),
        ({"challenge": "treasure_hunter", "level": 31}, "between 1 and 30"),
        ({"observation": "compat"}, "did you mean 'compact'"),
        ({"reward": "wins"}, "did you mean 'win'"),
        ({"max_turns": 0}, "must be at least 1"),
        ({"games": "/nowhere/game.json"}, "no game at '/nowhere/game.json'"),
        ({"games": __file__}, "a game is a .json or .z8 file"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(options, sentence):
    with pytest.raises(UserError) as caught:
        make("agentdistill/TextWorld-v0", **options)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_using_the_environment_before_reset_is_refused():
    with pytest.raises(ResetNeeded, match="reset"):
        TextWorldEnv().step("look")
