"""Two experts: the walkthrough that comes with a game, and the expert that ALFWorld's authors wrote by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from agentdistill.envs.alfworld.engine import Engine
from agentdistill.envs.alfworld.games import Game
from agentdistill.envs.alfworld.memo import replaced
from agentdistill.errors import UserError, nearest

NOTHING = "Nothing happens."
# These change nothing that a walkthrough depends on.
_HARMLESS = ("look", "inventory", "help", "examine ")
_MOST_STEPS = 200  # what `AlfredTWEnv` gives the handcoded expert


class Expert(Protocol):
    """What an expert of one episode does."""

    def see(self, command: str, text: str) -> None:
        """Take note of a command that was carried out, whoever gave it, and of what the game said."""

    def command(self) -> str | None:
        """What the expert would do now; None where it knows nothing to do."""


class Walkthrough:
    """Goes along the game's walkthrough; commands that change nothing keep it on its path, others end it for good."""

    def __init__(self, game: Game, engine: Engine) -> None:
        self._commands = [engine.renamed(command) for command in game.walkthrough]
        self._next: int | None = 0

    def see(self, command: str, text: str) -> None:
        """See `Expert`."""
        if self._next is None or text == NOTHING:
            return
        if self._next < len(self._commands) and command == self._commands[self._next]:
            self._next += 1
        elif not command.startswith(_HARMLESS):
            self._next = None

    def command(self) -> str | None:
        """See `Expert`."""
        return None if self._next is None or self._next >= len(self._commands) else self._commands[self._next]


class Handcoded:
    """ALFWorld's `HandCodedTWAgent`, as `AlfredTWEnv` asks it: `look` first and whenever its own wish is not admissible.

    It searches by what rooms are like, from any state, and sees every fact of the game. Some of its choices are random; here
    they follow from the game. It gives up after 200 steps, when its plan is at an end without success, and where it
    stumbles over a state it was not written for.
    """

    def __init__(self, game: Game, engine: Engine) -> None:
        from alfworld.agents.expert import handcoded_expert
        from alfworld.agents.expert.handcoded_expert_tw import HandCodedTWAgent

        self._module, self._engine, self._random = handcoded_expert, engine, random.Random(game.id)
        names = handcoded_expert.constants.OBJECTS
        parameters: dict[str, object] = {
            key: value.lower() if isinstance(value, str) and value in names else value
            for key, value in {**game.task.pddl_params(), "task_type": game.task.type}.items()
        }
        self._agent = HandCodedTWAgent(max_steps=_MOST_STEPS)
        self._agent.task_params = parameters
        self._agent.policy = self._agent.get_task_policy(parameters)(parameters, max_steps=_MOST_STEPS)
        self._agent.observe(engine.text)
        self._unseen: list[tuple[str, object]] = []  # facts are worked out only when the expert is asked
        self._wish: str | None = "look"

    def see(self, command: str, text: str) -> None:
        """See `Expert`."""
        self._unseen.append((command, self._engine.state))

    def command(self) -> str | None:
        """See `Expert`."""
        unseen, self._unseen = self._unseen, []
        with replaced(self._module, "random", self._random):
            for command, state in unseen:
                if self._wish is not None:
                    self._wish = self._ask(command, state)
        return self._wish

    def _ask(self, command: str, state: object) -> str | None:
        shown = self._engine.with_facts(state)
        gives_up = (self._module.HandCodedAgentTimeout, self._module.HandCodedAgentFailed, IndexError, KeyError)
        try:
            wish = str(self._agent.act(shown, 0, shown["won"], command))
        except gives_up:
            return None
        return wish if wish in shown["admissible_commands"] else "look"


EXPERTS: dict[str, Callable[[Game, Engine], Expert]] = {"walkthrough": Walkthrough, "handcoded": Handcoded}


def load_expert(name: str) -> Callable[[Game, Engine], Expert]:
    """An expert's class by name.

    Raises:
        UserError: when there is none.
    """
    if name not in EXPERTS:
        raise UserError(f"ALFWorld has no expert '{name}'{nearest(str(name), EXPERTS)}")
    return EXPERTS[name]
