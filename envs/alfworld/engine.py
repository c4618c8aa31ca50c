"""ALFWorld's own engine: TextWorld's `PddlEnv` under `AlfredDemangler`, one game at a time."""

from __future__ import annotations

import random
import re
from typing import Any

from agentdistill.envs.alfworld.games import Content, Game
from agentdistill.envs.alfworld.memo import fast, parts, replaced
from agentdistill.errors import UserError
from agentdistill.faults import described

# Tells nothing that the observation does not.
_DROPPED = "help"
_NAME = re.compile(r"[a-z]+ \d+")
_idle: list[Engine] = []


class Engine:
    """One game at a time.

    Raises:
        UserError: when alfworld is not installed.
    """

    def __init__(self) -> None:
        infos = parts().textworld.EnvInfos(won=True, admissible_commands=True)
        self._pddl = parts().PddlEnv(infos)
        self._env = parts().AlfredDemangler(self._pddl)
        self._loaded: tuple[Game, int | None] | None = None
        self._state: Any = None
        self._names: dict[str, str] = {}

    @property
    def won(self) -> bool:
        """Whether the goal is reached."""
        return bool(self._state["won"])

    @property
    def admissible(self) -> list[str]:
        """The commands that do something now, sorted, without `help`."""
        return [command for command in self._state["admissible_commands"] if command != _DROPPED]

    def start(self, game: Game, shuffle: int | None = None) -> str:
        """Begin a game; its introduction.

        Args:
            game: loaded unless it is the one played before.
            shuffle: a seed by which things are numbered anew (`AlfredDemangler(shuffle=True)`).

        Raises:
            UserError: when the engine cannot read the game.
        """
        with fast():
            try:
                if self._loaded != (game, shuffle):
                    self._loaded = None
                    self._load(game, game.read(), shuffle)
                    self._loaded = game, shuffle
                self._state = self._env.reset()
            except UserError:
                raise
            except (Exception, SystemExit) as error:  # parsers and a translator, each with errors of its own
                self._loaded, why = None, described(error)
                raise UserError(
                    f"the engine cannot read the game '{game.id}', so its data is damaged ({why}); import it again"
                ) from error
        return str(self._state.feedback)

    def act(self, command: str) -> str:
        """Carry out a command; what the game says."""
        with fast():
            self._state = self._env.step(command)[0]
        return str(self._state.feedback)

    @property
    def text(self) -> str:
        """What the game said last."""
        return str(self._state.feedback)

    @property
    def state(self) -> Any:
        """TextWorld's `GameState`, without facts in it."""
        return self._state

    def with_facts(self, state: Any) -> dict[str, Any]:
        """A state of this episode with its `facts` in the names that the player sees, as the handcoded expert wants it."""
        return {**state, "facts": [self._pddl._get_human_readable_fact(fact) for fact in state["_facts"]]}

    def renamed(self, command: str) -> str:
        """A command in the numbers of the game as it comes, in those of this episode."""
        return _NAME.sub(lambda name: self._names.get(name[0], name[0]), command)

    def _load(self, game: Game, content: Content, shuffle: int | None) -> None:
        parts().forget_interned()
        domain, grammar, problem = content
        self._env.load({"pddl_domain": domain, "grammar": grammar, "pddl_problem": problem})
        self._pddl._logic.grammar = parts().Grammar(self._pddl._logic.grammar, game.goal)
        self._names = {} if shuffle is None else self._shuffle(shuffle)

    def _shuffle(self, seed: int) -> dict[str, str]:
        """Number things anew; each name before and after."""
        infos, demangler = self._pddl._entity_infos, parts().misc.Demangler
        before = {key: info.name for key, info in infos.items()}
        with replaced(parts().misc, "random", random.Random(seed)):
            new = demangler(game_infos=infos, shuffle=True)
        for info in infos.values():
            info.name = new.demangle_alfred_name(info.id)
        return {name: infos[key].name for key, name in before.items()}


def borrow() -> Engine:
    """An idle engine, or a new one.

    Each has its own copy of the fast-downward library (4 MB), and a process that has unloaded two of them crashes when it
    ends. So none is ever unloaded, and what is not used any more is used again.
    """
    try:
        return _idle.pop()
    except IndexError:
        return Engine()


def give_back(engine: Engine) -> None:
    """End the use of a borrowed engine."""
    _idle.append(engine)
