"""A user's own games: which files they are, what each of them is, and which split it belongs to."""

from __future__ import annotations

import functools
import glob
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentdistill.envs.textworld.games import fast_textworld, require_textworld
from agentdistill.envs.textworld.logic import Game
from agentdistill.envs.textworld.story import STORIES, is_sound
from agentdistill.errors import UserError, nearest

SPLITS = ("train", "valid", "test")
SPLIT_BY = ("folder", "share", "none")
_FOLDERS = {"train": "train", "valid": "valid", "validation": "valid", "dev": "valid", "test": "test"}


@dataclass(frozen=True, slots=True)
class UserGame:
    """One task.

    Attributes:
        task: its path below the folder that all games are in, without the ending.
        story: the compiled game, or None.
        described: TextWorld's `.json` of it, or None; never both None.
    """

    task: str
    story: Path | None
    described: Path | None

    @property
    def path(self) -> Path:
        """The file that errors name."""
        found = self.story or self.described
        assert found is not None
        return found

    def game(self) -> tuple[Game, tuple[str, ...]]:
        """What the description says: the game, and its walkthrough, which may be empty.

        Raises:
            UserError: when it is no TextWorld game.
        """
        assert self.described is not None
        about = self.described.stat()
        return _read(self.described, about.st_mtime_ns, about.st_size)


def user_games(games: str | Sequence[str], split_by: str | None = None) -> tuple[list[UserGame], dict[str, list[int]]]:
    """The games of paths, folders (with all in them) and patterns such as `games/**/*.z8`, in the order of their names.

    Returns:
        The games, and positions among them by split. `folder` takes splits from folders named train, valid (validation, dev)
        and test, `share` a tenth each for valid and test, at least one where there are three games, by the hash of their
        names; `none` makes all of them train. None: by folders where there is one of those names, else shares.

    Raises:
        UserError: when there is no such file, one is no game, or the splits cannot be told.
    """
    if split_by is not None and split_by not in SPLIT_BY:
        raise UserError(f"TextWorld's option 'split_by' is '{split_by}'{nearest(str(split_by), SPLIT_BY)}")
    named = [games] if isinstance(games, str) else list(games)
    if not named or not all(isinstance(each, str) and each for each in named):
        raise UserError(f"TextWorld's option 'games' is {games!r} but must be a path, a pattern, or a list of them")
    files = sorted({file for each in named for file in _files(each)})
    root = Path(os.path.commonpath([file.parent for file in files]))
    by_name: dict[str, list[Path]] = {}
    for file in files:
        by_name.setdefault(file.relative_to(root).with_suffix("").as_posix(), []).append(file)
    found = [_game(task, together) for task, together in sorted(by_name.items())]
    return found, _splits([each.task for each in found], split_by)


def _files(named: str) -> list[Path]:
    path = Path(named).expanduser()
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.suffix in (*STORIES, ".json")]
    elif path.is_file():
        if path.suffix not in (*STORIES, ".json"):
            raise UserError(f"TextWorld's option 'games' names '{named}', but a game is a .json or .z8 file (or .z3 to .z7)")
        # A story's description is beside it, and a description's story.
        beside = [path.with_suffix(suffix) for suffix in (*STORIES, ".json")]
        found = [file for file in beside if file.is_file() and (file == path or ".json" in (file.suffix, path.suffix))]
    else:
        found = [Path(file) for file in glob.glob(str(path), recursive=True) if Path(file).suffix in (*STORIES, ".json")]
        found += [described for file in found if (described := file.with_suffix(".json")).is_file()]
    if not found:
        raise UserError(f"there is no game at '{named}' (TextWorld's option 'games')")
    return [Path(os.path.abspath(file)) for file in found]


def _game(task: str, files: Sequence[Path]) -> UserGame:
    stories = [file for file in files if file.suffix != ".json"]
    described = next((file for file in files if file.suffix == ".json"), None)
    if len(stories) > 1:
        raise UserError(f"'{stories[0]}' and '{stories[1]}' are two games of one name; rename one of them")
    for file in files:
        about = file.stat()
        if file.suffix == ".json":
            _looks_like_a_game(file, about.st_mtime_ns, about.st_size)
        elif not _sound(file, about.st_mtime_ns, about.st_size):
            raise UserError(f"'{file}' is not a complete Z-machine game (a {file.suffix} file)")
    return UserGame(task, stories[0] if stories else None, described)


def _splits(tasks: Sequence[str], split_by: str | None) -> dict[str, list[int]]:
    named = [next((_FOLDERS[p] for p in reversed(task.split("/")[:-1]) if p in _FOLDERS), "") for task in tasks]
    if split_by == "folder" or (split_by is None and any(named)):
        if "" in named:
            odd = tasks[named.index("")]
            raise UserError(f"game '{odd}' is in no folder named train, valid or test; put it into one, or set 'split_by'")
        return {split: [i for i, name in enumerate(named) if name == split] for split in SPLITS}
    count = 0 if split_by == "none" or len(tasks) < 3 else max(1, len(tasks) // 10)
    order = sorted(range(len(tasks)), key=lambda i: hashlib.sha256(tasks[i].encode()).digest())
    test, valid, train = order[:count], order[count : 2 * count], order[2 * count :]
    return {"train": sorted(train), "valid": sorted(valid), "test": sorted(test)}


@functools.lru_cache(maxsize=4096)
def _sound(path: Path, changed: int, size: int) -> bool:
    return is_sound(path)


@functools.lru_cache(maxsize=4096)
def _looks_like_a_game(path: Path, changed: int, size: int) -> None:
    try:
        data: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' is not a TextWorld game: {type(error).__name__}: {error}") from error
    if not isinstance(data, dict) or not {"version", "world", "KB"} <= data.keys():
        raise UserError(f"'{path}' is not a TextWorld game: it lacks 'version', 'world' or 'KB'")


@functools.lru_cache(maxsize=256)
def _read(path: Path, changed: int, size: int) -> tuple[Game, tuple[str, ...]]:
    textworld = require_textworld()
    try:
        with fast_textworld():
            game = textworld.Game.load(str(path))
            return Game.of(game), tuple(map(str, game.metadata.get("walkthrough") or ()))
    except Exception as error:  # TextWorld raises whatever it stumbles over
        raise UserError(f"'{path}' is not a TextWorld game: {type(error).__name__}: {error}") from error
