from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from agentdistill.envs.alfworld import engine, memo
from agentdistill.envs.alfworld.engine import Engine, borrow
from agentdistill.envs.alfworld.library import library
from agentdistill.errors import UserError
from benchmarks.alfworld_engine import side_by_side
from tests.needs import needs_alfworld

UNSEEN = 20_000
PLAY = """
import hashlib, random
from agentdistill.envs.alfworld.env import ALFWorldEnv
env, said = ALFWorldEnv(), hashlib.sha256()
for seed in (20_033, 20_101):
    rng = random.Random(seed)
    text, info = env.reset(seed=seed)
    for _ in range(12):
        said.update(text.encode())
        text, *_, info = env.step(rng.choice(info["admissible"]))
print(said.hexdigest())
"""


@pytest.fixture(scope="module", autouse=True)
def _real_parts() -> None:
    needs_alfworld()


@pytest.fixture
def own() -> Engine:
    return borrow()


# All 50 games of the issue: `python benchmarks/alfworld_engine.py`, which compares in the same way.
def test_every_text_and_list_of_commands_equals_the_stock_environments() -> None:
    found = side_by_side(2)
    assert (found["games"], found["equal_games"], found["won"]) == (2, 2, 2)
    assert found["compared_steps"] > 12


def test_the_same_commands_give_the_same_bytes_in_processes_that_hash_differently() -> None:
    def play(hashes: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hashes}
        return subprocess.run([sys.executable, "-c", PLAY], env=environment, capture_output=True, text=True, check=True).stdout

    first = play("1")
    assert len(first.strip()) == 2 * hashlib.sha256().digest_size
    assert play("2") == first


def test_a_game_is_read_and_translated_once_for_a_group_of_episodes(own: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    import fast_downward

    game = library().game(UNSEEN + 77)
    first = own.start(game)
    with memo.fast():
        translated = fast_downward.pddl2sas(game.read().domain, game.read().problem)
        again = fast_downward.pddl2sas(game.read().domain, game.read().problem)
    assert translated is again
    monkeypatch.setattr(own._env, "load", None)  # a second load would raise
    assert own.start(game) == first


def test_a_kept_translation_is_the_translators_own_to_the_byte() -> None:
    import fast_downward

    domain, _, problem = library().game(UNSEEN + 5).read()
    with memo.fast():
        kept = fast_downward.pddl2sas(domain, problem)[1]
    assert kept == fast_downward.pddl2sas(domain, problem)[1]


def test_interned_objects_are_forgotten_beyond_a_bound(own: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "_MOST_INTERNED", 10)
    first, second = library().game(UNSEEN), library().game(UNSEEN + 1)
    text = own.start(first)
    memo.parts().interned["mark"] = None
    own.start(second)
    assert "mark" not in memo.parts().interned
    assert own.start(first) == text
    for command in first.walkthrough:
        own.act(command)
    assert own.won


def test_the_engine_leaves_the_process_as_it_was(own: Engine) -> None:
    import fast_downward
    from textworld.envs.pddl import logic, textgen

    def state() -> list[object]:
        return [
            list(sys.argv), sys.stdout, fast_downward.pddl2sas, textgen._parse_and_convert, textgen.copy_context,
            textgen.Symbol.copy, logic._parse_and_convert,
        ]  # fmt: skip

    before = state()
    own.start(library().game(UNSEEN + 90), shuffle=3)
    own.act("look")
    assert state() == before


def test_an_engine_that_was_given_back_is_used_again(own: Engine) -> None:
    engine.give_back(own)
    assert borrow() is own


def test_a_game_that_cannot_be_loaded_leaves_the_engine_fit_for_others(own: Engine) -> None:
    good = library().game(UNSEEN)
    text = own.start(good)

    def damaged() -> None:
        raise UserError("gone")

    broken = type(good)(good.id, good.goal, good.walkthrough, good.task, damaged)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="gone"):
        own.start(broken)
    assert own.start(good) == text


@pytest.mark.parametrize("part", ["domain", "grammar", "problem"])
@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: ""])
def test_a_game_that_the_engine_cannot_read_is_named(own: Engine, part: str, damage: Callable[[str], str]) -> None:
    good = library().game(UNSEEN)
    content = good.read()._replace(**{part: damage(getattr(good.read(), part))})
    broken = type(good)(good.id, good.goal, good.walkthrough, good.task, lambda: content)
    with pytest.raises(UserError, match=f"the engine cannot read the game '{good.id}', so its data is damaged .*; import it"):
        own.start(broken)
    assert own.start(good).startswith("-= Welcome to TextWorld, ALFRED! =-")


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_idle", [])
    monkeypatch.setitem(sys.modules, "fast_downward", None)
    memo.parts.cache_clear()
    try:
        with pytest.raises(UserError, match=r"pip install 'agentdistill\[alfworld\]'"):
            borrow()
    finally:
        memo.parts.cache_clear()


def test_nothing_of_the_engine_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, agentdistill.envs.alfworld.env as e; e.library().seeds('test'); "
        "print([m for m in ('fast_downward', 'textworld', 'alfworld') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
