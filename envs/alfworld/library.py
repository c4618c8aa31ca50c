"""Where games come from, and which seed names which game."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from agentdistill.datasets import remedy
from agentdistill.envs.alfworld import official, packed
from agentdistill.envs.alfworld.games import SPLITS, Game
from agentdistill.envs.data import data_folder
from agentdistill.errors import UserError, nearest

# A split's first seed; its games follow, sorted by id.
FIRST_SEED = {"train": 0, "valid_seen": 10_000, "valid_unseen": 20_000, "valid_train": 30_000}
ALIASES = {"valid": "valid_seen", "test": "valid_unseen", "tcod_hard": "train_hard"}
HARD = "train_hard"
_SPAN = 10_000


class Library:
    """The games of one folder of packed or official data. Splits are read when they are asked for, and kept.

    Raises:
        UserError: when the folder is missing or holds neither.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(
                f"ALFWorld's option 'data' names '{folder}', and there is no such folder; name packed data or json_2.1.*"
            )
        releases = sorted(folder.glob("json_2.1.*"))
        self.folder = folder = releases[0] if releases and not official.is_official(folder) else folder
        self.packed = packed.is_packed(folder)
        if not self.packed and not official.is_official(folder):
            raise UserError(
                f"'{folder}' holds no ALFWorld games: neither packed data ({packed.DOMAIN}, train.jsonl.xz, …) nor a folder "
                f"json_2.1.* with {', '.join(SPLITS[:3])}; set AGENTDISTILL_DATA or the option 'data' to one of them, or "
                f"{remedy('alfworld')}"
            )
        self._splits: dict[str, tuple[Game, ...]] = {}

    def games(self, split: str) -> tuple[Game, ...]:
        """The games of one of the four splits.

        Raises:
            UserError: when its data is missing or damaged.
        """
        if split not in self._splits:
            read = packed.read_split if self.packed else official.read_split
            self._splits[split] = read(self.folder, split)
        return self._splits[split]

    def game(self, seed: int) -> Game:
        """The game of a seed.

        Raises:
            UserError: when no game has it, or its split's data is missing or damaged.
        """
        for split, first in FIRST_SEED.items():
            if first <= seed < first + _SPAN and seed - first < len(self.games(split)):
                return self.games(split)[seed - first]
        raise UserError(f"ALFWorld has no game of seed {seed}; take seeds from task_seeds(split)")

    def seeds(self, split: str, types: frozenset[str] | None = None) -> Sequence[int]:
        """Seeds of a split's games, of some task types only where `types` names them.

        Raises:
            UserError: when there is no such split, no game of these types in it, or its data is missing or damaged.
        """
        known = (*FIRST_SEED, HARD, *ALIASES)
        if split not in known:
            raise UserError(f"ALFWorld has no split '{split}'{nearest(split, known)}")
        name = ALIASES.get(split, split)
        seeds = self._hard() if name == HARD else range(FIRST_SEED[name], FIRST_SEED[name] + len(self.games(name)))
        if types is None:
            return seeds
        chosen = [seed for seed in seeds if self.game(seed).task.type in types]
        if not chosen:
            raise UserError(f"ALFWorld's split '{split}' has no game of type {' or '.join(sorted(types))}")
        return chosen

    def _hard(self) -> list[int]:
        """Seeds of TCOD's hard training games, in its order. Official data has no such list: the packed data's serves it."""
        folder = self.folder if (self.folder / packed.TCOD).exists() or self.packed else data_folder("alfworld")
        place = {game.id: index for index, game in enumerate(self.games("train"))}
        ids = packed.hard_ids(folder)
        if absent := [each for each in ids if each not in place]:
            raise UserError(
                f"{len(absent)} of TCOD's {len(ids)} hard games are not in '{self.folder}', the first '{absent[0]}'"
            )
        return [FIRST_SEED["train"] + place[each] for each in ids]


def library(data: str | None = None) -> Library:
    """The library of a folder (`~` and `$VARIABLES` are expanded), by default of `$AGENTDISTILL_DATA/alfworld`; made once.

    Raises:
        UserError: when there is no such folder, or no games in it.
    """
    return _library(data_folder("alfworld") if data is None else Path(os.path.expandvars(data)).expanduser().resolve())


@functools.cache
def _library(folder: Path) -> Library:
    return Library(folder)


def forget() -> None:
    """Read folders anew when they are next asked for."""
    _library.cache_clear()
