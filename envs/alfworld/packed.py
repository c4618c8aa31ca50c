"""Games from packed data: a JSON-lines file a split, and the domain and grammar that all games share."""

from __future__ import annotations

import functools
import json
import zlib
from pathlib import Path
from typing import Any

from agentdistill.envs.alfworld.games import UNKNOWN_GOAL, Content, Game
from agentdistill.envs.alfworld.tasks import task_of
from agentdistill.envs.data import read_rows, read_text
from agentdistill.errors import UserError

DOMAIN, GRAMMAR, TCOD = "alfred.pddl", "alfred.twl2", "tcod_splits.json"
_KEYS = ("id", "goal", "walkthrough", "pddl_problem")


def is_packed(folder: Path) -> bool:
    """Whether a folder looks like packed data."""
    return (folder / DOMAIN).exists() or any(folder.glob("*.jsonl.xz"))


def read_split(folder: Path, split: str) -> tuple[Game, ...]:
    """The games of a split in the order of its file.

    Raises:
        UserError: naming the file, when one is missing or damaged.
    """
    domain, grammar = read_text(folder / DOMAIN), read_text(folder / GRAMMAR)
    if UNKNOWN_GOAL not in grammar:
        raise UserError(f"the data file '{folder / GRAMMAR}' is damaged: it has no place for a goal; import it again")
    path = folder / f"{split}.jsonl.xz"
    games = tuple(_game(path, line, row, domain, grammar) for line, row in enumerate(read_rows(path), 1))
    if not games:
        raise UserError(f"the data file '{path}' holds no game; import it again")
    return games


def hard_ids(folder: Path) -> list[str]:
    """Ids of the training games that TCOD (arXiv 2604.24005) found hard.

    Raises:
        UserError: when the file is missing or damaged.
    """
    path = folder / TCOD
    try:
        ids = json.loads(read_text(path))["train_hard"]
        if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
            raise TypeError("'train_hard' is no list of ids")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"the data file '{path}' is damaged ({error}); import it again") from error
    return ids


def _game(path: Path, line: int, row: Any, domain: str, grammar: str) -> Game:
    try:
        game_id, goal, walkthrough, problem = (row[key] for key in _KEYS)
        problem = zlib.compress(problem.encode(), 1)
        task, walkthrough = task_of(game_id), tuple(str(command) for command in walkthrough)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"the data file '{path}' is damaged in line {line}: {what}; import it again") from error
    return Game(game_id, goal, walkthrough, task, functools.partial(_content, domain, grammar, problem))


def _content(domain: str, grammar: str, compressed: bytes) -> Content:
    return Content(domain, grammar, zlib.decompress(compressed).decode())
