"""Games in ALFWorld's own folders (`json_2.1.*`, as `alfworld-download` makes them): reading them, and writing such folders."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentdistill.envs.alfworld.games import SPLITS, UNKNOWN_GOAL, Content, Game
from agentdistill.envs.alfworld.tasks import task_of
from agentdistill.errors import UserError

GAME_FILE, TRAJECTORY_FILE = "game.tw-pddl", "traj_data.json"
_GOAL = re.compile(r"Your task is to: (.*?)\.\"")
# ALFWorld's own loader leaves these out: the text engine cannot play them.
_UNPLAYABLE = ("movable", "Sliced")
_AGAIN = "download it again (alfworld-download)"


def is_official(folder: Path) -> bool:
    """Whether a folder has ALFWorld's splits in it."""
    return any((folder / split).is_dir() for split in SPLITS)


def read_split(folder: Path, split: str) -> tuple[Game, ...]:
    """The games of a split that ALFWorld's own loader would take, sorted by id.

    Raises:
        UserError: naming the file or folder, when it is missing, damaged or without a game.
    """
    found = {
        f"{split}/{path.parent.parent.name}/{path.parent.name}": path for path in (folder / split).glob(f"*/*/{GAME_FILE}")
    }
    games = [
        game
        for game_id, path in sorted(found.items())
        if not any(word in game_id for word in _UNPLAYABLE) and (game := _game(game_id, path)) is not None
    ]
    if not games:
        raise UserError(f"there is no game ({GAME_FILE}) in '{folder / split}'; {_AGAIN}")
    return tuple(games)


def write_games(folder: Path, games: Iterable[Game]) -> list[Path]:
    """Write games as ALFWorld's own loader and expert read them; the paths of their `game.tw-pddl` files."""
    paths = []
    for game in games:
        path = folder / game.id / GAME_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(game.file()), encoding="utf-8")
        trajectory = {"task_type": game.task.type, "pddl_params": game.task.pddl_params()}
        (path.parent / TRAJECTORY_FILE).write_text(json.dumps(trajectory), encoding="utf-8")
        paths.append(path)
    return paths


def _game(game_id: str, path: Path) -> Game | None:
    """The game of a file; None where it is known to be unsolvable, or was never checked."""
    data = _read(path)
    try:
        if not data.get("solvable"):
            return None
        goal = _GOAL.findall(data["grammar"])[0]
        walkthrough = tuple(str(command) for command in data["walkthrough"] or ())
        return Game(game_id, goal, walkthrough, task_of(game_id), functools.partial(_content, path, goal))
    except IndexError:
        raise UserError(f"the game '{path}' is damaged: its grammar names no task; {_AGAIN}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"the game '{path}' is damaged: {what}; {_AGAIN}") from error


def _content(path: Path, goal: str) -> Content:
    data = _read(path)
    try:
        grammar = data["grammar"].replace(f"Your task is to: {goal}.", f"Your task is to: {UNKNOWN_GOAL}.")
        return Content(data["pddl_domain"], grammar, data["pddl_problem"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the game '{path}' is damaged: it has no {error}; {_AGAIN}") from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the game '{path}' cannot be read: {error.strerror}; {_AGAIN}") from error
    except ValueError as error:  # of JSON and of UTF-8
        raise UserError(f"the game '{path}' is damaged ({error}); {_AGAIN}") from error
