"""The environment: options, episodes and limits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from gymnasium.error import ResetNeeded

from agentdistill.environment import TextEnv, pick_split
from agentdistill.envs.java import require_java
from agentdistill.envs.textworld_express.engine import UNKNOWN, Engine, State
from agentdistill.envs.textworld_express.games import SPLITS, fold_of, parameters_of
from agentdistill.errors import UserError, nearest

REWARDS = ("win", "score")


class TextWorldExpressEnv(TextEnv):
    """TextWorld-Express, one game a seed. A command that is not understood costs a turn.

    Each environment has a Java process, started by the first reset, reused by all others, and gone after `close`.

    Args:
        game: `cookingworld`, `twc`, `coin`, `mapreader`, `arithmetic`, `sorting`, `simonsays` or `peckingorder`.
        reward: `win` gives 1 at the winning step; `score` gives each step's change of the score, 1 in all for a win.
        max_turns: the episode is truncated after so many commands. Gold paths take 5 to 35, `cookingworld`'s to about 105.
        parameters: the game's own, by the simulator's names, such as `numLocations=3` (see `games.GAMES`).

    Raises:
        UserError: when Java is missing, or an option or parameter does not exist or fit.
    """

    system_prompt = (
        "You play a text game. Answer each observation with one command and nothing else, such as: look around, inventory, "
        "move north, open X, take X, put X in Y, read X."
    )

    def __init__(self, game: str = "cookingworld", *, reward: str = "win", max_turns: int = 50, **parameters: Any) -> None:
        if reward not in REWARDS:
            raise UserError(f"TextWorld-Express has no reward '{reward}'{nearest(str(reward), REWARDS)}")
        if max_turns < 1:
            raise UserError(f"TextWorld-Express's option 'max_turns' is {max_turns} but must be at least 1")
        self._engine = Engine(game, parameters_of(game, parameters))
        require_java("TextWorld-Express")
        self.game, self.reward, self.max_turns = game, reward, max_turns
        self._state: State | None = None  # None where no episode is on
        self._turns = 0
        self._next: int | None = None  # place in the gold path; None once it was left

    def task_seeds(self, split: str) -> Sequence[int]:
        """Seeds of a split: 1,000 each in train, valid = dev, and test, which are the simulator's folds.

        Raises:
            UserError: when there is no such split.
        """
        seeds: Sequence[int] = pick_split(SPLITS, split, "TextWorld-Express")
        return seeds

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start the game of a seed; without one, a training game is drawn. The observation states the task.

        Returns:
            The observation, and `info`: `task_id`, `goal`, `text` (what follows it), `score`, and `admissible`, the commands
            that are possible.

        Raises:
            UserError: when no fold has this seed, or Java or the package is missing.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.choice(SPLITS["train"]))
        self._state = None  # what is played ends here, also where the new game cannot be started
        state = self._engine.start(seed, fold_of(seed))
        self._state, self._turns, self._next = state, 0, 0
        info = {"task_id": f"{self.game}-{seed}", "score": state.score, "admissible": state.admissible}
        info |= {"goal": self._engine.task, "text": state.text.strip()}
        return f"{self._engine.task}\n\n{state.text.strip()}", info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Carry out one command; `info` has `success`, `score` (at most 1) and `admissible`."""
        before, wish = self._current(), self.expert_action()
        command = " ".join(action.encode("utf-8", "replace").decode().split())  # half of a surrogate pair cannot be sent
        state = self._state = self._engine.act(command)
        self._turns += 1
        if command == wish:
            self._next = self._after(before) + 1
        elif not state.text.startswith(UNKNOWN):
            self._next = None
        terminated = _over(state)
        reward = state.score - before.score if self.reward == "score" else float(state.won and not before.won)
        info = {"success": state.won, "score": state.score, "admissible": state.admissible}
        return state.text.strip(), reward, terminated, not terminated and self._turns >= self.max_turns, info

    def close(self) -> None:
        """End the Java process; a reset starts another."""
        self._engine.close()
        self._state = None

    def expert_action(self) -> str | None:
        """The gold path's next command that is possible; None once the game is over, or the path was left.

        Commands that are not understood change nothing: the gold path has some, which are passed over, and do not leave it.
        """
        state, gold = self._current(), self._engine.gold
        if self._next is None or _over(state) or self._after(state) >= len(gold):
            return None
        return gold[self._after(state)]

    def plan(self) -> str:
        """The gold path's commands, separated by commas."""
        self._current()
        return ", ".join(self._engine.gold)

    def random_action(self, rng: random.Random) -> str:
        """A random possible command, to make noisy demonstrations with."""
        return rng.choice(self._current().admissible)

    def _after(self, state: State) -> int:
        """Place of the gold path's next possible command."""
        assert self._next is not None
        gold = self._engine.gold
        return next((k for k in range(self._next, len(gold)) if gold[k] in state.admissible), len(gold))

    def _current(self) -> State:
        if self._state is None:
            raise ResetNeeded("call reset() before anything else")
        return self._state


def _over(state: State) -> bool:
    return state.won or state.lost or state.score >= 1
