"""A user's own games: files, splits, and what each kind of game offers."""

from __future__ import annotations

import importlib
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gymnasium.utils.env_checker import check_env

from agentdistill.environment import make, splits, task_seeds
from agentdistill.envs.textworld import TextWorldEnv
from agentdistill.envs.textworld.games import generate
from agentdistill.envs.textworld.prose import compile_game
from agentdistill.envs.textworld.settings import settings_of
from agentdistill.episode import episode
from agentdistill.errors import UserError
from agentdistill.pool import EnvPool, Workers
from tests.needs import needs

needs("textworld")

CAVE = """
Use scoring. The maximum score is 10.
The Cave is a room. "A dark cave. A tunnel leads east."
The Hall is east of the Cave. The coin is in the Hall.
After taking the coin: increase the score by 5; say "It is gold."
After dropping the coin: increase the score by 5; end the story finally saying "You have won".
Instead of jumping: say "You count to [a random number between 1 and 30000]."
Instead of waking up: end the story saying "You have died".
Instead of sleeping: end the story.
"""
WIN = ["go east", "take coin", "go west", "drop coin"]


def saved(path: Path, level: int, *, story: bool = False, walkthrough: list[str] | None = None) -> list[str]:
    """A coin collector game, with its expert's commands or others as the stored walkthrough; the expert's."""
    settings = settings_of("coin_collector", {"level": level})
    env = TextWorldEnv("coin_collector", level=level)
    env.reset(seed=level)
    game = generate("coin_collector", settings, level)
    plan = env.plan().split(", ")
    game.metadata["walkthrough"] = plan if walkthrough is None else walkthrough
    path.parent.mkdir(parents=True, exist_ok=True)
    game.save(str(path.with_suffix(".json")))
    if story:
        compile_game(game, path.with_suffix(".z8"))
    return plan


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Games by split: `train/tiny` with description and `test/cave` without one are compiled."""
    folder = tmp_path_factory.mktemp("shelf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTDISTILL_CACHE", str(folder / "cache"))
        saved(folder / "games" / "train" / "tiny", 3, story=True)
        for level in (4, 5):
            saved(folder / "games" / "train" / f"facts{level}", level)
        saved(folder / "games" / "valid" / "long", 6)
        cave = folder / "games" / "test" / "cave.z8"
        cave.parent.mkdir()
        importlib.import_module("textworld").generator.inform7.compile_inform7_game(CAVE, str(cave))
        yield folder / "games"


def play(env: TextWorldEnv, seed: int, actions: list[str]) -> list[object]:
    said: list[object] = [env.reset(seed=seed)]
    for action in actions:
        said.append(env.step(action))
    return said


def test_folders_named_for_splits_are_the_splits(shelf: Path) -> None:
    env = TextWorldEnv(games=str(shelf))
    assert splits(env) == {"train": [1, 2, 3], "valid": [4], "test": [0]}
    names = [env.reset(seed=seed)[1]["task_id"] for seed in range(5)]
    assert names == ["test/cave", "train/facts4", "train/facts5", "train/tiny", "valid/long"]
    assert env.run_metadata()["games"] == names
    assert {env.reset()[1]["task_id"] for _ in range(20)} == {"train/facts4", "train/facts5", "train/tiny"}
    env.close()


@pytest.mark.parametrize("named", ["*/*.json", "**/*.json", ["train/tiny.json", "valid/long.json", "train/facts4.json"]])
def test_games_are_named_by_path_pattern_or_list(shelf: Path, named: str | list[str]) -> None:
    games = [str(shelf / each) for each in named] if isinstance(named, list) else str(shelf / named)
    assert "valid/long" in TextWorldEnv(games=games).run_metadata()["games"]


def test_without_such_folders_a_tenth_each_is_held_out(tmp_path: Path, shelf: Path) -> None:
    for i in range(25):
        shutil.copy(shelf / "valid" / "long.json", tmp_path / f"game{i:02d}.json")
    found = splits(TextWorldEnv(games=str(tmp_path)))
    assert [len(found[name]) for name in ("train", "valid", "test")] == [21, 2, 2]
    assert sorted(i for seeds in found.values() for i in seeds) == list(range(25))
    assert splits(TextWorldEnv(games=str(tmp_path))) == found
    assert splits(TextWorldEnv(games=str(tmp_path), split_by="none"))["train"] == list(range(25))
    few = TextWorldEnv(games=[str(tmp_path / f"game0{i}.json") for i in range(2)])
    assert list(task_seeds(few, "train")) == [0, 1]
    with pytest.raises(UserError, match=r"none of the 2 games .* is in split 'test'"):
        few.task_seeds("test")


def test_every_walkthrough_wins_in_words_and_in_facts(shelf: Path) -> None:
    for observation in (None, "facts"):
        env = TextWorldEnv(games=[str(shelf / "train"), str(shelf / "valid")], observation=observation, reward="score")
        for seed in range(4):
            env.reset(seed=seed)
            total, info = 0.0, {}
            while (action := env.expert_action()) is not None:
                _, reward, terminated, _, info = env.step(action)
                total += reward
            assert terminated
            assert info["success"], env.reset(seed=seed)[1]
            assert total == pytest.approx(1)
            assert env.max_turns == 50
        env.close()


def test_compiled_games_are_shown_in_prose_and_others_from_facts(shelf: Path) -> None:
    env = TextWorldEnv(games=str(shelf / "train"), admissible=True)
    first, info = env.reset(seed=2)
    assert "-= " in first
    assert "look" in info["admissible"]
    assert env.reset(seed=0)[0].startswith("take coin")
    assert "You are in the" in TextWorldEnv(games=str(shelf / "train"), observation="facts").reset(seed=2)[0]
    with pytest.raises(UserError, match=r"needs a compiled \.z8 game, and there is none beside '.*facts4\.json'"):
        TextWorldEnv(games=str(shelf / "train"), observation="prose")
    with pytest.raises(UserError, match=r"beside '.*cave\.z8' there is no 'cave\.json'; use observation 'prose'"):
        TextWorldEnv(games=str(shelf / "test"), observation="facts")
    env.close()


def test_a_story_of_which_nothing_is_known_is_played_for_its_score(shelf: Path) -> None:
    env = TextWorldEnv(games=str(shelf / "test" / "cave.z8"), reward="score", admissible=True)
    first, info = env.reset(seed=0)
    assert "A dark cave" in first
    assert "admissible" not in info
    assert env.expert_action() is None
    assert env.plan() is None
    answers = [env.step(action) for action in WIN]
    assert [answer[1] for answer in answers] == [0, 5, 0, 5]
    assert [answer[2] for answer in answers] == [False, False, False, True]
    assert [answer[4]["success"] for answer in answers] == [False, False, False, True]
    assert "It is gold." in answers[1][0]
    assert not any(">" in answer[0] or "RESTART" in answer[0] for answer in answers)
    assert env.random_action(random.Random(0)).startswith("go ")
    with pytest.raises(UserError, match="nothing is known of this game"):
        _ = env.engine
    for end in ("wake up", "sleep"):
        env.reset(seed=0)
        assert env.step("quit")[0] == "That's not a verb I recognise."
        lost = env.step(end)
        assert (lost[2], lost[4]["success"]) == (True, False), end
    env.close()


def test_the_same_actions_give_the_same_bytes_chance_included(shelf: Path) -> None:
    actions = ["jump", "x me", "jump", *WIN]
    first, second = TextWorldEnv(games=str(shelf)), TextWorldEnv(games=str(shelf))
    said = play(first, 0, actions)
    assert said[1] != said[3]  # the game does draw
    time.sleep(1.1)  # the interpreter's own choice of a seed would be the clock, in seconds
    play(second, 3, ["look"])
    assert play(second, 0, actions) == said
    first.close()
    second.close()


def test_a_story_whose_description_is_gone_reads_the_same(shelf: Path, tmp_path: Path) -> None:
    known = TextWorldEnv(games=str(shelf / "train" / "tiny.z8"))
    shutil.copy(shelf / "train" / "tiny.z8", tmp_path / "tiny.z8")
    plan = (known.reset(seed=0), known.plan())[1].split(", ")  # type: ignore[union-attr]
    bare = TextWorldEnv(games=str(tmp_path / "tiny.z8"), reward="score")
    told, untold = play(known, 0, ["dance", *plan]), play(bare, 0, ["dance", *plan])
    assert [each[0] for each in told[1:]] == [each[0] for each in untold[1:]]  # type: ignore[index]
    assert untold[-1][1:3] == (1.0, True)  # type: ignore[index]
    assert untold[-1][4] == {"success": True}  # type: ignore[index]
    assert bare.expert_action() is None
    known.close()
    bare.close()


@pytest.mark.parametrize("wrong", [["look"], ["go up", "take coin"], []])
def test_a_walkthrough_that_does_not_win_is_no_expert(tmp_path: Path, wrong: list[str]) -> None:
    saved(tmp_path / "game", 3, walkthrough=wrong)
    env = TextWorldEnv(games=str(tmp_path / "game.json"))
    env.reset(seed=0)
    assert env.expert_action() is None
    assert env.plan() is None


def test_a_walkthrough_ends_with_the_game_and_one_that_loses_is_no_expert(tmp_path: Path) -> None:
    plan = saved(tmp_path / "game", 3)
    saved(tmp_path / "game", 3, walkthrough=[*plan, "look", "take coin"])
    env = TextWorldEnv(games=str(tmp_path / "game.json"))
    env.reset(seed=0)
    assert env.plan() == ", ".join(plan)
    game = generate("cooking", settings_of("cooking", {}), 1000)
    game.metadata["walkthrough"] = [
        "open fridge", "take red tuna from fridge", "take knife from counter", "chop red tuna with knife",
    ]  # fmt: skip
    game.save(str(tmp_path / "lost.json"))
    env = TextWorldEnv(games=str(tmp_path / "lost.json"))
    env.reset(seed=0)
    assert env.expert_action() is None


def test_the_walkthrough_outlasts_looking_about_and_no_step_aside(shelf: Path) -> None:
    env = TextWorldEnv(games=[str(shelf / "train" / "tiny.json"), str(shelf / "train" / "facts4.json")])
    for seed in (0, 1):
        env.reset(seed=seed)
        wish = env.expert_action()
        assert wish is not None
        for idle in ("look", "inventory", "sing a song", "take unicorn"):
            env.step(idle)
            assert env.expert_action() == wish
        env.step(wish)
        env.step(f"go {({'north': 'south', 'south': 'north', 'east': 'west', 'west': 'east'})[wish.split()[1]]}")
        assert env.expert_action() is None
    env.close()


def test_bad_files_are_refused_by_name(shelf: Path, tmp_path: Path) -> None:
    story = (shelf / "test" / "cave.z8").read_bytes()
    bad = {
        "cut.z8": story[:-3000], "empty.z8": b"", "zip.z8": b"PK" * 200, "old.z5": story, "list.json": b"[1]",
        "cut.json": (shelf / "valid" / "long.json").read_bytes()[:500], "other.json": b'{"a": 1}', "notes.txt": b"hello",
    }  # fmt: skip
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError) as refused:
            make("agentdistill/TextWorld-v0", games=str(tmp_path / name))
        assert name in str(refused.value)
        assert "\n" not in str(refused.value)
        (tmp_path / name).unlink()
    hollow = tmp_path / "hollow.json"
    hollow.write_text('{"version": 1, "world": 3, "KB": {}}')
    with pytest.raises(UserError, match=r"hollow\.json' is not a TextWorld game"):
        TextWorldEnv(games=str(hollow)).reset(seed=0)
    (tmp_path / "a").mkdir()
    for suffix in (".z8", ".z5"):
        (tmp_path / "a" / f"twice{suffix}").write_bytes(story)
    with pytest.raises(UserError, match="two games of one name"):
        TextWorldEnv(games=str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"games": []}, "must be a path, a pattern, or a list of them"),
        ({"games": "nowhere/*.z8"}, "no game at 'nowhere/*.z8'"),
        ({"games": "x.json", "split_by": "folders"}, "did you mean 'folder'"),
        ({"split_by": "folder"}, "'split_by' is for 'games'"),
        ({"games": "x.json", "level": 3, "challenge": "coin_collector"}, "'level' is of generated games"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        make("agentdistill/TextWorld-v0", **options)
    assert sentence in str(refused.value)


def test_a_game_outside_the_folders_is_named(shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "valid", tmp_path / "valid")
    shutil.copy(shelf / "valid" / "long.json", tmp_path / "stray.json")
    with pytest.raises(UserError, match="game 'stray' is in no folder named train, valid or test"):
        TextWorldEnv(games=str(tmp_path))
    assert splits(TextWorldEnv(games=str(tmp_path), split_by="none"))["train"] == [0, 1]


def test_the_checker_of_gymnasium_is_content(shelf: Path) -> None:
    env = make("agentdistill/TextWorld-v0", games=str(shelf))
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def test_workers_play_them_as_this_process_does(shelf: Path) -> None:
    found = []
    for workers in (None, Workers(1)):
        pool = EnvPool("agentdistill/TextWorld-v0", {"games": str(shelf)}, workers=workers)
        found.append(pool.play(episode(seed, 50) for seed in range(5)))
        pool.close()
    assert found[0] == found[1]
    assert [each.success for each in found[0]] == [False, True, True, True, True]


def test_a_games_files_have_fingerprints_that_follow_their_contents(tmp_path: Path) -> None:
    saved(tmp_path / "one", 2)
    saved(tmp_path / "two", 3)
    before = TextWorldEnv(games=str(tmp_path)).run_metadata()["files"]
    saved(tmp_path / "two", 4)
    after = TextWorldEnv(games=str(tmp_path)).run_metadata()["files"]
    assert before.keys() == {"one.json", "two.json"}
    assert [name for name in before if before[name] != after[name]] == ["two.json"]
