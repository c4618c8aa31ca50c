"""The simulator, asked for no more than is needed.

The package's own `ScienceWorldEnv.step` has every valid action listed after each step, hundreds of them; that is most of its
time. Here the same server is asked for the text, the score and the objects in sight.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from agentdistill.envs.scienceworld.java import Java
from agentdistill.envs.scienceworld.simplifications import for_task

LOOK = "look around"  # the first move of every episode, as `ScienceWorldEnv.reset` makes it
UNKNOWN = "No known action matches that input."
_GONE = "ScienceWorld's Java process has ended; reset() starts another"
_MOST_GOLD = 4096
_gold: dict[tuple[str, int, str], tuple[str, ...]] = {}  # some take ten seconds to find


class Engine:
    """One variation at a time, in a Java process that is kept for the next.

    Attributes:
        commands: what was done in this episode.
        score: −100 to 100, of the episode so far.
        objects: names of the objects in sight, in alphabetical order.
        completed: whether the simulator counts the task as over.
    """

    def __init__(self) -> None:
        self._java: Java | None = None
        self._loaded: tuple[str, int, str] = ("", 0, "")
        self._templates: dict[str, list[str]] = {}
        self.commands: list[str] = []
        self.objects: list[str] = []
        self.score, self.completed = 0, False

    @property
    def java(self) -> Java:
        """The process, started where there is none, or none any more."""
        if self._java is None or not self._java.alive:
            self.close()
            self._java = Java()
        return self._java

    def start(self, task: str, variation: int, simplifications: Sequence[str]) -> str:
        """Begin a variation; the view at the start.

        Raises:
            UserError: when Java or the package is missing.
        """
        self._loaded = (task, variation, for_task(simplifications, task))
        return self._load(gold=False)

    def act(self, command: str) -> str:
        """Carry out a command; what the simulator says to it. A `RuntimeError` where its process has ended."""
        if self._java is None:
            raise RuntimeError(_GONE)
        try:
            text = self._act(command, self._java)
        except Exception as error:
            if self._java.ends():
                raise RuntimeError(_GONE) from error
            raise
        self.commands.append(command)
        return text

    def description(self) -> str:
        """The task in words."""
        return str(self.java.server.getTaskDescription())

    def templates(self) -> list[str]:
        """What commands look like, `OBJ` standing for an object, in alphabetical order."""
        simplifications = self._loaded[2]
        if simplifications not in self._templates:
            rows = json.loads(self.java.server.getPossibleActionsWithIDs())
            self._templates[simplifications] = sorted(str(row["action_example"]) for row in rows)
        return list(self._templates[simplifications])

    def gold(self) -> tuple[str, ...]:
        """Commands that solve the task from its start.

        The simulator finds them only while it loads a task, so this begins the episode again, once for each variation, and
        brings it back to where it was.
        """
        if self._loaded not in _gold:
            done = list(self.commands)
            self._load(gold=True)
            if len(_gold) >= _MOST_GOLD:
                _gold.pop(next(iter(_gold)))
            _gold[self._loaded] = self.java.texts(self.java.server.getGoldActionSequence())
            self._load(gold=False)
            for command in done:
                self.act(command)
        return _gold[self._loaded]

    def close(self) -> None:
        """End the Java process."""
        if self._java is not None:
            self._java.close()
            self._java = None

    def _load(self, *, gold: bool) -> str:
        self.java.server.load(*self._loaded, gold)
        self.commands.clear()
        return self._act(LOOK, self.java)

    def _act(self, command: str, java: Java) -> str:
        server = java.server
        text = str(server.step(command))
        self.score, self.completed = round(100 * server.getScore()), bool(server.getCompleted())
        # Asked after every command, wanted or not: how the simulator names things that are alike depends on its being asked.
        self.objects = sorted(set(json.loads(server.getPossibleObjectReferentLUTJSON()).values()))
        return text
