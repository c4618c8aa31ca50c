"""The environment: options, episodes and limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gymnasium.error import ResetNeeded

from agentdistill.environment import TextEnv
from agentdistill.envs.java import require_java
from agentdistill.envs.scienceworld import rewards
from agentdistill.envs.scienceworld.engine import UNKNOWN, Engine
from agentdistill.envs.scienceworld.prompts import CLOSE, OPEN, command_of, first, instructions, later, listing
from agentdistill.envs.scienceworld.simplifications import simplifications
from agentdistill.envs.scienceworld.tasks import chosen, seeds, task_of
from agentdistill.errors import UserError

_SOLVED = 100


class ScienceWorldEnv(TextEnv):
    """ScienceWorld's 30 tasks (Wang et al., arXiv 2203.07540), with TCOD's settings by default.

    A message's command is its last `<action>…</action>`, or all of it where there is none. A command that is not
    understood costs a turn. The episode ends when the task is over: solved, failed (a score below 0), or given up on by
    the simulator. Each environment has a Java process, started by the first reset, reused by all others, and gone after
    `close`.

    Args:
        max_turns: the episode is truncated after so many messages. Gold paths take 5 to about 180.
        tasks: names of tasks to which `task_seeds` keeps; all 30 by default.
        simplify: `easy`, or names of simplifications (see `simplifications.SIMPLIFICATIONS`); none for the full world.
        reward: `delta`, `score` or `best` (see `rewards.reward`), in hundredths of the score.
        templates: show in the first observation what commands look like.
        objects: show in every observation what objects are in sight.

    Raises:
        UserError: when Java is missing, or an option does not fit.
    """

    def __init__(
        self, max_turns: int = 30, *, tasks: Sequence[str] | str | None = None, simplify: Sequence[str] | str | None = "easy",
        reward: str = "delta", templates: bool = True, objects: bool = True,
    ) -> None:  # fmt: skip
        if max_turns < 1:
            raise UserError(f"ScienceWorld's option 'max_turns' is {max_turns} but must be at least 1")
        require_java("ScienceWorld")
        self.max_turns, self.templates, self.objects = max_turns, templates, objects
        self._tasks, self._simplify, self._reward = chosen(tasks), simplifications(simplify), rewards.check(reward)
        self._engine = Engine()
        self._scores: list[int] = []  # at the start and after each step; empty where no episode is on
        self._path: list[str] = []  # the commands that were understood
        self._about: dict[str, Any] = {}

    def task_seeds(self, split: str) -> Sequence[int]:
        """Seeds of train (3,592), valid = dev (1,796), test (1,819), and TCOD's tcod_train and tcod_test, which take the first
        half of the variations of 17 and 13 tasks; less where `tasks` chooses among them. Tasks take turns.

        Raises:
            UserError: when there is no such split, or no variation of these tasks in it.
        """
        return seeds(split, self._tasks)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start the variation of a seed, or a random training one.

        Returns:
            The observation, and `info`: `task_id`, `task_type` and `task` (its name), `variation`, `goal`, `score`, `text`,
            `templates`, `objects`, `instructions`, and `notes`, the objects as they are shown.

        Raises:
            UserError: when no variation has this seed, or Java or the package is missing.
        """
        super().reset(seed=seed)
        if seed is None:
            seed = int(self.np_random.choice(self.task_seeds("train")))
        self._scores = []  # what is played ends here, also where the new task cannot be started
        task, variation = task_of(seed)
        text = self._engine.start(task, variation, self._simplify)
        self._scores, self._path, self._about = [self._engine.score], [], {"task": task, "variation": variation}
        goal, templates, objects = self._engine.description(), self._engine.templates(), self._engine.objects
        named = templates if self.templates else ()
        shown = first(goal, text, named, objects if self.objects else ())
        info = {"task_id": f"{task}/{variation}", "task_type": task, "goal": goal, "templates": templates}
        info["instructions"] = instructions(named)
        return shown, info | self._seen(text, objects)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Carry out a message's command; `info` has `success` (a score of 100), `command`, and those of `reset` that change."""
        engine, command = self._current(), command_of(action)
        text = engine.act(command)
        self._scores.append(engine.score)
        if text != UNKNOWN:
            self._path.append(command)
        terminated = engine.completed or engine.score < 0
        truncated = not terminated and len(self._scores) > self.max_turns
        earned = rewards.reward(self._reward, self._scores, ended=terminated or truncated)
        objects = engine.objects
        info = {"success": engine.score == _SOLVED, "command": command} | self._seen(text, objects)
        return later(text, objects if self.objects else ()), earned, terminated, truncated, info

    def close(self) -> None:
        """End the Java process; a reset starts another."""
        self._engine.close()
        self._scores = []

    def expert_action(self) -> str | None:
        """The gold path's next command, as `<action>…</action>`; None once the task is over, or its path was left.

        Commands that were not understood do not leave it.
        """
        engine = self._current()
        if engine.completed or engine.score < 0:
            return None
        gold, count = engine.gold(), len(self._path)
        on_it = count < len(gold) and tuple(self._path) == gold[:count]
        return f"{OPEN}{gold[count]}{CLOSE}" if on_it else None

    def plan(self) -> str:
        """The gold path's commands, separated by commas."""
        return ", ".join(self._current().gold())

    def _current(self) -> Engine:
        if not self._scores:
            raise ResetNeeded("call reset() before anything else")
        return self._engine

    def _seen(self, text: str, objects: list[str]) -> dict[str, Any]:
        notes = {"notes": listing(objects)} if self.objects else {}
        return self._about | {"score": self._engine.score, "text": text, "objects": objects} | notes
