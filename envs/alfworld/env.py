"""The environment: options, episodes and limits."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from gymnasium.error import ResetNeeded

from agentdistill.environment import TextEnv
from agentdistill.envs.alfworld.engine import Engine, borrow, give_back
from agentdistill.envs.alfworld.experts import Expert, load_expert
from agentdistill.envs.alfworld.games import Game
from agentdistill.envs.alfworld.library import library
from agentdistill.envs.alfworld.prompts import CLOSE, OPEN, command_of, load_prompt, well_formed
from agentdistill.envs.alfworld.rewards import load_preset, load_reward
from agentdistill.envs.alfworld.tasks import task_types
from agentdistill.errors import UserError
from agentdistill.seeds import derive


class ALFWorldEnv(TextEnv):
    """ALFWorld's text games (Shridhar et al., arXiv 2010.03768), with the answers of TCOD and verl-agent.

    A message's command is its last `<action>…</action>`, or all of it where there is none. A command that the game does
    not know costs a turn and is answered with `Nothing happens.`. There is no system prompt: the observations tell how to
    answer.

    Args:
        max_turns: the episode is truncated after so many messages; the preset's (TCOD 30, verl-agent 50) by default.
        admissible: list the possible commands in every observation; `info["admissible"]` has them in any case.
        preset: prompt, reward and turns that belong together: `tcod` or `verl-agent` (see `rewards.PRESETS`).
        prompt: a name (see `prompts.PROMPTS`) or templates, instead of the preset's.
        reward: a name (`binary`: 1 for the winning step; `verl-agent`: 10, and −0.1 for a malformed message) or
            `{won: …, malformed: …}`, instead of the preset's.
        expert: `walkthrough` (the shortest, as long as its path is kept) or `handcoded` (from any state; longer).
        types: task types to which `task_seeds` keeps, by name (`put-two`, `pick_two_obj_and_place`) or number; all by default.
        shuffle: number things anew, other than in the released games; another integer numbers them otherwise.
        data: a folder of packed data, or an official `json_2.1.*` folder; `$AGENTDISTILL_DATA/alfworld` by default.

    Raises:
        UserError: when alfworld or the data is missing, or an option does not fit.
    """

    def __init__(
        self, max_turns: int | None = None, admissible: bool = True, *, preset: str = "tcod",
        prompt: str | Mapping[str, Any] | None = None, reward: str | Mapping[str, Any] | None = None,
        expert: str = "walkthrough", types: Sequence[str | int] | str | int | None = None, shuffle: bool | int = False,
        data: str | None = None,
    ) -> None:  # fmt: skip
        together = load_preset(preset)
        self.max_turns = together.max_turns if max_turns is None else max_turns
        if self.max_turns < 1:
            raise UserError(f"ALFWorld's option 'max_turns' is {max_turns} but must be at least 1")
        self.admissible, self.shuffle = admissible, _checked(shuffle)
        self._prompt = load_prompt(together.prompt if prompt is None else prompt)
        self._reward = load_reward(together.reward if reward is None else reward)
        self._new_expert, self._types = load_expert(expert), None if types is None else task_types(types)
        self._library = library(data)
        self._engine: Engine | None = borrow()
        self._game: Game | None = None
        self._expert: Expert | None = None
        self._turns = 0

    def task_seeds(self, split: str) -> Sequence[int]:
        """Seeds of train (3,553), valid_seen = valid (140), valid_unseen = test (134), valid_train (200) and of TCOD's
        121 hard training games, train_hard; less where `types` chooses among them.

        Raises:
            UserError: when there is no such split, or no game of these types in it.
        """
        return self._library.seeds(split, self._types)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start the game of a seed, or a random training game.

        Args:
            seed: see `task_seeds`.
            options: `shuffle` stands in for the environment's in this episode.

        Returns:
            The observation, and `info`: `task_id`, `goal`, `task_type`, `instructions`, `admissible`, and `text`, the game's
            own words but for the goal.

        Raises:
            UserError: when no game has this seed, or its data is missing or damaged.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.choice(self.task_seeds("train")))
        game = self._library.game(seed)
        self._game = self._expert = None  # what is played ends here, also where the new game cannot be read
        if self._engine is None:  # it was closed
            self._engine = borrow()
        shuffle = _checked((options or {}).get("shuffle", self.shuffle))
        text = self._engine.start(game, None if shuffle is False else derive(int(shuffle), "alfworld", seed))
        self._game, self._expert, self._turns = game, self._new_expert(game, self._engine), 0
        info = {"task_id": game.id, "goal": game.goal, "task_type": game.task.type, "instructions": self._prompt.instructions}
        return self._shown(text, first=True), info | self._seen(text.removesuffix(f"Your task is to: {game.goal}.").rstrip())

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Carry out a message's command; `info` carries `success`, `well_formed`, `command`, `admissible` and `text`."""
        _, engine, expert = self._current()
        command, formed = command_of(action), well_formed(action)
        text = engine.act(command)
        self._turns += 1
        expert.see(command, text)
        won = engine.won
        info = {"success": won, "well_formed": formed, "command": command} | self._seen(text)
        return self._shown(text), self._reward(won, formed), won, not won and self._turns >= self.max_turns, info

    def close(self) -> None:
        """Free the engine for other environments; a reset takes one again."""
        if self._engine is not None:
            give_back(self._engine)
            self._engine = self._game = self._expert = None

    def expert_action(self) -> str | None:
        """The expert's next command, as `<action>…</action>`; None once the game is won, and where it knows no way."""
        _, engine, expert = self._current()
        command = None if engine.won else expert.command()
        return None if command is None else f"{OPEN}{command}{CLOSE}"

    def plan(self) -> str:
        """The walkthrough's commands, separated by commas."""
        game, engine, _ = self._current()
        return ", ".join(engine.renamed(command) for command in game.walkthrough)

    def random_action(self, rng: random.Random) -> str:
        """A random admissible command, to make noisy demonstrations with; `expert: handcoded` finds back from it."""
        return f"{OPEN}{rng.choice(self._current()[1].admissible)}{CLOSE}"

    def _current(self) -> tuple[Game, Engine, Expert]:
        if self._game is None or self._engine is None or self._expert is None:
            raise ResetNeeded("call reset() before anything else")
        return self._game, self._engine, self._expert

    def _shown(self, text: str, *, first: bool = False) -> str:
        game, engine, _ = self._current()
        return self._prompt.show(text, game.goal, engine.admissible if self.admissible else None, first=first)

    def _seen(self, text: str) -> dict[str, Any]:
        return {"admissible": self._current()[1].admissible, "text": text}


def _checked(shuffle: object) -> int:
    """The option `shuffle`, where it is one."""
    if not isinstance(shuffle, int):
        raise UserError(f"ALFWorld's option 'shuffle' is {shuffle!r} but must be true, false or a whole number")
    return shuffle
