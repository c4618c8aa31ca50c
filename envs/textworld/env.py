"""The environment: options, splits, rewards and limits."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from agentdistill.environment import TextEnv, pick_split
from agentdistill.envs.textworld.engine import DIRECTIONS, Engine
from agentdistill.envs.textworld.games import require_textworld
from agentdistill.envs.textworld.play import Play
from agentdistill.envs.textworld.settings import Settings, settings_of
from agentdistill.envs.textworld.task import OBSERVATIONS, Expert, GeneratedTask, Task, UserTask, user_tasks
from agentdistill.errors import UserError, nearest

SPLITS = {"train": range(1000, 1800), "valid": range(3000, 3128), "test": range(5000, 5256)}
REWARDS = ("win", "score")
# Compact games are for models trained on them from scratch, to whom instructions would be noise.
PROMPT = """You play a text adventure. Answer each observation with one command and nothing else.
Commands: look, inventory, examine X, go north, open X, take X, take X from Y, put X on Y, insert X into Y, drop X, \
eat X, unlock X with Y, cook X with Y, chop X with Y, slice X with Y, dice X with Y, prepare meal."""
USERS_PROMPT = """You play a text adventure. Answer each observation with one command and nothing else, \
such as: look, inventory, examine X, open X, take X, put X on Y, go north."""


class TextWorldEnv(TextEnv):
    """TextWorld's games: generated, one a seed, or a user's own.

    Args:
        challenge: of generated games: `cooking`, `simple`, `coin_collector` or `treasure_hunter`.
        games: games to play instead: a path, a folder, a pattern such as `games/**/*.z8`, or a list of these. A game is a
            compiled story (`.z8`, also `.z3` to `.z7`), TextWorld's `.json`, or both side by side under one name. Seeds are
            positions among them by name.
        split_by: what says which split a game is in: `folder` (named train, valid, test), `share` (a tenth each for valid and
            test), or `none` (all are train); None: folders where there are such, else shares.
        observation: `compact` (a few words), `facts` (English sentences made from the game's facts) or `prose` (the
            text of the compiled game; generated ones take Inform 7 about 2.5 s each). None: `compact`, and `prose` for
            `games` that are compiled.
        reward: `win` gives 1 at the winning step; `score` gives each step's share of the maximal score, 1 in all, or its
            points in games that have no known maximum.
        max_turns: the episode is truncated after so many actions; None chooses by challenge, or by a game's walkthrough.
        admissible: list the possible commands in `info["admissible"]`, which costs most of a step's time. A story without a
            `.json` has no such list, and no expert.
        settings: the challenge's own settings, such as `recipe` or `level` (see `settings.py`).

    Raises:
        UserError: for an option or setting that does not exist or fit, a file that is no game, or when textworld is missing.
    """

    def __init__(
        self,
        challenge: str = "cooking",
        *,
        games: str | Sequence[str] | None = None,
        split_by: str | None = None,
        observation: str | None = None,
        reward: str = "win",
        max_turns: int | None = None,
        admissible: bool = False,
        **settings: Any,
    ) -> None:
        require_textworld()
        self.settings: Settings = settings_of(challenge, settings)
        if observation is not None and observation not in OBSERVATIONS:
            raise UserError(f"TextWorld has no observation '{observation}'{nearest(observation, OBSERVATIONS)}")
        if reward not in REWARDS:
            raise UserError(f"TextWorld has no reward '{reward}'{nearest(reward, REWARDS)}")
        if max_turns is not None and max_turns < 1:
            raise UserError(f"TextWorld's option 'max_turns' is {max_turns} but must be at least 1")
        if games is not None and settings:
            raise UserError(f"TextWorld's setting '{next(iter(settings))}' is of generated games, and 'games' names others")
        if games is None and split_by is not None:
            raise UserError("TextWorld's option 'split_by' is for 'games', and none are named")
        self.challenge, self.reward, self.admissible, self._limit = challenge, reward, admissible, max_turns
        self._games: list[Task] = []
        self._splits: Mapping[str, Sequence[int]] = SPLITS
        if games is not None:
            self._games, self._splits = user_tasks(games, split_by, observation)
        self.observation = observation or "compact"
        in_words = any(getattr(task, "observation", "") != "compact" for task in self._games) or self.observation != "compact"
        self.system_prompt = (USERS_PROMPT if self._games else PROMPT) if in_words else ""
        self._task: Task | None = None
        self._play: Play | None = None
        self._expert: Expert | None = None
        self._turns = 0

    @property
    def play(self) -> Play:
        """The game being played.

        Raises:
            UserError: before the first reset.
        """
        if self._play is None:
            raise UserError("reset the TextWorld environment before using it")
        return self._play

    @property
    def engine(self) -> Engine:
        """The facts of the game being played; a `UserError` where they are not known."""
        if (engine := self.play.engine) is None:
            raise UserError("nothing is known of this game but what it prints, since it has no TextWorld .json beside it")
        return engine

    @property
    def max_turns(self) -> int:
        """Turns after which an episode is truncated."""
        return self._limit or (self._task.max_turns if self._task else self.settings.max_turns())

    def task_seeds(self, split: str) -> Sequence[int]:
        """Seeds of a split: 800 `train`, 128 `valid`, 256 `test`; of `games`, their positions.

        Raises:
            UserError: when there is no such split, or no game in it.
        """
        seeds: Sequence[int] = pick_split(self._splits, split, "TextWorld")
        if not seeds:
            raise UserError(
                f"none of the {len(self._games)} games that TextWorld's option 'games' names is in split '{split}'; "
                "name more, or see 'split_by'"
            )
        return seeds

    def run_metadata(self) -> dict[str, Any]:
        """Which games a user's are, and the fingerprints of their files."""
        if not self._games:
            return {}
        files = {name: mark for task in self._games if isinstance(task, UserTask) for name, mark in task.files().items()}
        return {"games": [task.id for task in self._games], "files": files}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start the game of a seed; without one, a training game is drawn. The observation states the goal, and so does
        `info["goal"]`, with `info["text"]` for the rest of it.

        Raises:
            UserError: when a file is no game.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.choice(self._splits["train"]))
        self.close()
        self._task = self._named(seed)
        self._play, self._turns = self._task.start(), 0
        self._expert = self._task.expert(self._play)
        shown, info = self._play.first(), {"task_id": self._task.id}
        if goal := self._play.goal:
            info |= {"goal": goal, "text": shown.removeprefix(goal).strip()}
        return shown, self._with_admissible(info)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Carry out one command. One that makes no sense costs a turn and changes nothing."""
        play, before = self.play, self.play.score
        observation = play.act(action)
        assert self._expert is not None
        self._expert.see(action, play)
        self._turns += 1
        gained = (play.score - before) / (play.most or 1.0)
        ended = play.won or play.lost
        info = self._with_admissible({"success": play.won})
        reward = gained if self.reward == "score" else float(play.won)
        return observation, reward, ended, not ended and self._turns >= self.max_turns, info

    def close(self) -> None:
        """Free the interpreter of a `prose` game."""
        if self._play is not None:
            self._play.close()
            self._play = None

    def expert_action(self) -> str | None:
        """What an expert would do now; None once the game is over, or where there is no expert.

        Generated games have one that plays from any state, knowing only what has been seen so far. In a user's game it is
        the stored walkthrough, where that wins, until it is left.
        """
        over = self.play.won or self.play.lost or self._expert is None
        return None if over or self._expert is None else self._expert.command()

    def plan(self) -> str | None:
        """The commands by which the expert wins this game from its start, separated by commas; None without an expert."""
        _ = self.play  # refuses where no episode is on
        assert self._task is not None
        return self._task.plan()

    def random_action(self, rng: random.Random) -> str:
        """A random admissible command, to make noisy demonstrations with; a direction where those are not known."""
        return rng.choice(self.play.admissible() or [f"go {direction}" for direction in DIRECTIONS])

    def _named(self, seed: int) -> Task:
        if self._games:
            return self._games[seed % len(self._games)]
        return GeneratedTask(self.challenge, self.settings, seed, self.observation)

    def _with_admissible(self, info: dict[str, Any]) -> dict[str, Any]:
        if self.admissible and (commands := self.play.admissible()) is not None:
            info["admissible"] = commands
        return info
