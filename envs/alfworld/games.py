"""A game as it is kept: what is known of it without playing it, and how its text is fetched when it is played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentdistill.envs.alfworld.tasks import Task

UNKNOWN_GOAL = "UNKNOWN GOAL"
"""Stands for the goal in a grammar that serves every game."""
SPLITS = ("train", "valid_seen", "valid_unseen", "valid_train")


class Content(NamedTuple):
    """What the engine plays: PDDL domain and problem, and the text grammar with `UNKNOWN GOAL` in the goal's place."""

    domain: str
    grammar: str
    problem: str


@dataclass(frozen=True, slots=True, eq=False)
class Game:
    """One game.

    Attributes:
        id: `split/type-Object-None-Target-scene/trial`.
        goal: the task in words, without a full stop.
        walkthrough: commands that win.
        read: fetches the content; it is not kept, since that of the training games takes 190 MB.
    """

    id: str
    goal: str
    walkthrough: tuple[str, ...]
    task: Task
    read: Callable[[], Content]

    def file(self) -> dict[str, Any]:
        """The content of the game's `game.tw-pddl` file."""
        domain, grammar, problem = self.read()
        return {
            "pddl_domain": domain,
            "grammar": grammar.replace(UNKNOWN_GOAL, self.goal),
            "pddl_problem": problem,
            "solvable": True,
            "walkthrough": list(self.walkthrough),
        }
