"""Makes games, and keeps them on disk so that no process makes one twice.

Making a cooking game takes TextWorld 0.6 to 0.95 s, and 0.012 s here: the knowledge base, which every game of a
challenge shares, is read once, and `GameMaker.set_walkthrough`, which compiles and replays the game to find a
walkthrough that `expert.py` makes unnecessary, is left out.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agentdistill.envs.textworld.logic import Game
from agentdistill.envs.textworld.settings import Settings, as_mapping
from agentdistill.envs.textworld.words import goal
from agentdistill.errors import UserError

# Raised when what this module stores changes, so that old files are left alone and not read.
CACHE_VERSION = 1
_SEEDS = 1 << 32  # what TextWorld's generator takes
_knowledge: dict[str, Any] = {}
_lock = threading.RLock()


def require_textworld() -> Any:
    """The `textworld` module.

    Raises:
        UserError: when it is not installed.
    """
    try:
        import textworld
        import textworld.challenges
    except ImportError as error:
        first = "" if shutil.which("cc") else " (first a C compiler, which one of its parts needs: apt-get install gcc)"
        raise UserError(
            f"TextWorld environments need the textworld package: pip install 'agentdistill[textworld]'{first}"
        ) from error
    return textworld


@contextlib.contextmanager
def fast_textworld() -> Iterator[None]:
    """While inside, TextWorld reads each knowledge base once and makes no walkthroughs; afterwards all is as before."""
    textworld = require_textworld()
    base, maker = textworld.generator.KnowledgeBase, textworld.GameMaker
    with _lock:
        kept = {name: base.__dict__[name] for name in ("load", "deserialize")}
        walkthrough = maker.set_walkthrough

        def memoised(name: str) -> classmethod[Any, Any, Any]:
            def call(cls: Any, *args: Any, **kwargs: Any) -> Any:
                text = json.dumps([name, args, kwargs], sort_keys=True)
                key = hashlib.sha256(text.encode()).hexdigest()
                if key not in _knowledge:
                    _knowledge[key] = kept[name].__func__(cls, *args, **kwargs)
                return _knowledge[key]

            return classmethod(call)

        try:
            for name in kept:
                setattr(base, name, memoised(name))
            maker.set_walkthrough = lambda self, commands: None
            yield
        finally:
            for name, method in kept.items():
                setattr(base, name, method)
            maker.set_walkthrough = walkthrough


def cache_folder() -> Path:
    """Where games are kept: `$AGENTDISTILL_CACHE/textworld`, or `~/.cache/agentdistill/textworld`."""
    root = os.environ.get("AGENTDISTILL_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "agentdistill") / "textworld"


def game_path(challenge: str, settings: Settings, seed: int, suffix: str = ".json") -> Path:
    """The file of one game in the cache; different settings never share a file."""
    text = json.dumps([CACHE_VERSION, challenge, as_mapping(settings)], sort_keys=True)
    return cache_folder() / f"{challenge}-{hashlib.sha256(text.encode()).hexdigest()[:12]}" / f"{seed}{suffix}"


def generate(challenge: str, settings: Settings, seed: int) -> Any:
    """A new `textworld.Game`; the same arguments give the same game.

    Raises:
        UserError: when TextWorld cannot make a game of these settings for this seed, which is one below 2^32.
    """
    textworld = require_textworld()
    if not 0 <= seed < _SEEDS:
        raise UserError(f"TextWorld makes no game of seed {seed}; take seeds from task_seeds(split), or others below 2^32")
    options = textworld.GameOptions()
    options.seeds = seed
    with fast_textworld(), warnings.catch_warnings():
        # Running out of adjectives for rooms is TextWorld's own affair, and harmless.
        warnings.simplefilter("ignore", textworld.generator.GenerationWarning)
        textworld.g_rng.set_seed(seed)
        make = textworld.challenges.CHALLENGES[f"tw-{challenge}"][1]
        try:
            game = make(as_mapping(settings), options)
        except Exception as error:
            raise UserError(f"TextWorld could not make a '{challenge}' game of seed {seed}: {error}") from error
    # TextWorld words an objective from the walkthrough, which is left out, unless the challenge has one of its own.
    if not game.objective and getattr(settings, "goal", "") != "none":
        game.objective = f"Your goal: {goal(Game.of(game))}."
    return game


@functools.lru_cache(maxsize=2048)
def load_game(challenge: str, settings: Settings, seed: int) -> Game:
    """The game of a seed: from memory, from disk, or made and stored. A damaged file is made again.

    Raises:
        UserError: when the game cannot be made or the cache folder cannot be written.
    """
    path = game_path(challenge, settings, seed)
    if path.is_file():
        # A damaged file can make TextWorld raise anything; whatever it is, the game is made again.
        with contextlib.suppress(Exception):
            return read_game(path)
    game = generate(challenge, settings, seed)
    write_whole(path, lambda temporary: game.save(str(temporary)))
    # Facts come back sorted, so a game just made and a game read back give the same text.
    return Game.of(game)


def read_game(path: Path) -> Game:
    """Read one of TextWorld's `.json` game files."""
    textworld = require_textworld()
    with fast_textworld():
        return Game.of(textworld.Game.load(str(path)))


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name and rename it, so that no reader ever sees half of it.

    Raises:
        UserError: when the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as folder:
            temporary = Path(folder) / path.name
            write(temporary)
            os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write the game '{path}': {error.strerror or error}; set AGENTDISTILL_CACHE to a folder with room"
        ) from error
