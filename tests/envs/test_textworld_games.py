import importlib
import os
import subprocess
import sys
import threading

import pytest

from agentdistill.envs.textworld import TextWorldEnv, games
from agentdistill.envs.textworld.games import fast_textworld, game_path, generate, load_game
from agentdistill.envs.textworld.prose import compiled
from agentdistill.envs.textworld.settings import Cooking, settings_of
from agentdistill.envs.textworld.story import is_sound
from agentdistill.errors import UserError
from tests.needs import needs

needs("textworld")
textworld = importlib.import_module("textworld")

SCRIPT = """
from agentdistill.envs.textworld import TextWorldEnv
env = TextWorldEnv(go=6, observation="facts")
print(repr([env.reset(seed=1000)[0], env.plan(), env.engine.admissible()]))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTDISTILL_CACHE", str(tmp_path / "cache"))
    load_game.cache_clear()
    yield tmp_path / "cache"
    load_game.cache_clear()


def test_game_is_stored_once_and_read_back_the_same(monkeypatch):
    made = load_game("cooking", Cooking(), 1000)
    load_game.cache_clear()
    monkeypatch.setattr(games, "generate", lambda *_: pytest.fail("made again"))
    read = load_game("cooking", Cooking(), 1000)
    assert (read.facts, read.names, read.objective) == (made.facts, made.names, made.objective)


@pytest.mark.parametrize("damage", [b"", b"{", b"[1, 2]", b'{"version": 1}', b"\xff\xfe"])
def test_damaged_game_is_made_again(damage):
    made = load_game("cooking", Cooking(), 1000)
    path = game_path("cooking", Cooking(), 1000)
    whole = path.read_bytes()
    path.write_bytes(damage or whole[:2000])
    load_game.cache_clear()
    assert load_game("cooking", Cooking(), 1000).facts == made.facts
    assert len(path.read_bytes()) == len(whole)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_settings_do_not_share_files():
    paths = {game_path("cooking", Cooking(recipe=n), 1) for n in (1, 2, 3)}
    assert len(paths) == 3


def test_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AGENTDISTILL_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write the game .*1000\.json"):
        load_game("cooking", Cooking(), 1000)


def test_processes_with_different_hash_seeds_see_the_same_game(tmp_path):
    def start(hash_seed):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "AGENTDISTILL_CACHE": str(tmp_path / hash_seed)}
        return subprocess.Popen([sys.executable, "-c", SCRIPT], env=env, stdout=subprocess.PIPE, text=True)

    first, second = [process.communicate()[0] for process in (start("1"), start("2"))]
    assert "You are in the" in first
    assert first == second


def test_threads_making_the_same_game_agree():
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_game("cooking", Cooking(), 5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(game.facts == found[0].facts for game in found)


def test_game_does_not_depend_on_the_games_made_before_it():
    settings = settings_of("treasure_hunter", {"level": 5})
    first = sorted(map(str, generate("treasure_hunter", settings, 3).world.facts))
    generate("cooking", Cooking(drop=True), 9)
    generate("treasure_hunter", settings, 4)
    assert sorted(map(str, generate("treasure_hunter", settings, 3).world.facts)) == first


def test_textworld_is_as_before_outside_the_fast_context():
    base, maker = textworld.generator.KnowledgeBase, textworld.GameMaker
    before = (base.__dict__["load"], base.__dict__["deserialize"], maker.set_walkthrough)
    try:
        with fast_textworld():
            inside = base.__dict__["load"]
            raise RuntimeError
    except RuntimeError:
        assert inside is not before[0]
    assert (base.__dict__["load"], base.__dict__["deserialize"], maker.set_walkthrough) == before


def test_user_game_is_played_whatever_the_seed(tmp_path):
    path = tmp_path / "mine.json"
    generate("cooking", Cooking(), 77).save(str(path))
    env = TextWorldEnv(games=str(path))
    first, info = env.reset(seed=1)
    assert info["task_id"] == "mine"
    assert env.reset(seed=2)[0] == first == TextWorldEnv().reset(seed=77)[0]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 1, "world": 3}'])
def test_file_that_is_not_a_game_is_refused(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"broken\.json' is not a TextWorld game"):
        TextWorldEnv(games=str(path))


def test_missing_package_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(UserError, match=r"pip install 'agentdistill\[textworld\]'$"):
        TextWorldEnv()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="apt-get install gcc"):
        TextWorldEnv()


def test_nothing_in_an_action_reaches_the_interpreter_instead_of_the_game(tmp_path, monkeypatch):
    here = tmp_path / "here"  # the interpreter would write into it
    here.mkdir()
    monkeypatch.chdir(here)
    env = TextWorldEnv(observation="prose")
    env.reset(seed=1000)
    env.step(env.expert_action() or "")
    held = env.step("inventory")[0]
    for action in (
        "look. restart", "x me. quit", "me, undo", "look then save", "x me. TRANSCRIPxyz on", "look. tw-print quests",
        "\x00", "a\x00b", "\x0e", "\x13", "\\look", "x \\s",
    ):  # fmt: skip
        assert env.step(action)[0] in ("That's not a verb I recognise.", "You can't see any such thing."), action
        assert env.step("inventory")[0] == held, action
    assert not list(here.iterdir())


def test_prose_is_the_real_text_and_the_expert_wins_by_it():
    env = TextWorldEnv(observation="prose")
    first, _ = env.reset(seed=1000)
    assert first.startswith("You are hungry! Let's cook a delicious meal.")
    assert "-= Kitchen =-" in first
    assert "That's not a verb I recognise." in env.step("dance wildly")[0]
    assert env.step("restart")[0] == env.step("tw-print state")[0] == "That's not a verb I recognise."
    texts, success = [], False
    while (action := env.expert_action()) is not None:
        text, *_, info = env.step(action)
        texts.append(text)
        success = info["success"]
    assert success
    assert env.engine.won
    assert "Directions:" in texts[0]
    assert texts[-1].endswith("turns.")
    assert not any("[" in text or ">" in text for text in texts)
    assert env.reset(seed=1000)[0] == first
    _story_of_a_user_is_played(first)
    _damaged_story_is_compiled_again(first)


def _story_of_a_user_is_played(first):
    path = compiled("cooking", Cooking(), 1000)
    assert TextWorldEnv(games=str(path), observation="prose").reset(seed=3)[0] == first
    assert TextWorldEnv(games=str(path)).reset()[0] == first
    assert TextWorldEnv(games=str(path), observation="compact").reset()[0].startswith("cook the recipe")


def _damaged_story_is_compiled_again(first):
    """In the same test, because each compilation takes seconds."""
    path = compiled("cooking", Cooking(), 1000)
    data = path.read_bytes()
    for damaged in (b"", b"PK" * 100, data[:-3000], data[:9000] + b"\0\0\0" + data[9003:]):
        path.write_bytes(damaged)
        assert not is_sound(path)
        with pytest.raises(UserError, match="not a complete Z-machine game"):
            TextWorldEnv(games=str(path), observation="prose").reset()
    env = TextWorldEnv(observation="prose")
    assert env.reset(seed=1000)[0] == first


def test_missing_inform_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("INFORM_HOME", str(tmp_path))
    with pytest.raises(UserError, match="Inform 7 could not compile a game for observation 'prose'"):
        TextWorldEnv(observation="prose").reset(seed=1000)
