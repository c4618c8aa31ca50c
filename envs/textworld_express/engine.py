"""The simulator: one game at a time, in a Java process that is kept for the next."""

from __future__ import annotations

import json
from typing import NamedTuple

from agentdistill.envs.java import Java, Simulator
from agentdistill.errors import UserError

UNKNOWN = "Unknown action:"  # how the answer to a command begins that is not understood; it changes nothing
SIMULATOR = Simulator(
    "TextWorld-Express", "textworld_express", "textworld-express", "textworldexpress.runtime.PythonInterface"
)  # fmt: skip
# Games whose gold paths are drawn anew each time, by agents that walk at random: here their randomness comes from the seed.
_WALKERS = {"coin": "CoinGoldAgent", "twc": "TWCGoldAgent"}
_WALKS = 50  # as often as the simulator lets them try
_GONE = "TextWorld-Express's Java process has ended; reset() starts another"


class State(NamedTuple):
    """What the simulator says after a command, or at the start; `score` goes up to 1, `admissible` is sorted."""

    text: str
    score: float
    won: bool
    lost: bool
    admissible: list[str]


class Engine:
    """The games of one kind, played one after another.

    Args:
        game: the simulator's name.
        parameters: as `games.parameters_of` gives them.

    Attributes:
        task: what is to be done, in words.
        gold: commands that win the game from its start, found by walking about (so it is not the shortest way).
    """

    def __init__(self, game: str, parameters: str) -> None:
        self.game, self.parameters = game, parameters
        self.task, self.gold = "", tuple[str, ...]()
        self._java: Java | None = None

    @property
    def java(self) -> Java:
        """The process, started where there is none, or none any more."""
        if self._java is None or not self._java.alive:
            self.close()
            self._java = Java(SIMULATOR)
            if refused := str(self._java.server.load(self.game, self.parameters)).strip():
                self.close()
                raise UserError(f"TextWorld-Express cannot make a game '{self.game}' ({self.parameters}): {refused}")
        return self._java

    def start(self, seed: int, fold: str) -> State:
        """Begin a game.

        Raises:
            UserError: when Java or the package is missing, or the simulator does not take the parameters.
        """
        server, drawn = self.java.server, self.game in _WALKERS
        state = _state(server.generateNewGameJSON(seed, fold, not drawn))
        self.task = str(server.getTaskDescription())
        self.gold = self._walk(seed, fold) if drawn else self.java.texts(server.getGoldActionSequence())
        return state

    def act(self, command: str) -> State:
        """Carry out a command. A `RuntimeError` where the process has ended."""
        if self._java is None:
            raise RuntimeError(_GONE)
        try:
            return _state(self._java.server.stepJSON(command))
        except Exception as error:
            if self._java.ends():
                raise RuntimeError(_GONE) from error
            raise

    def _walk(self, seed: int, fold: str) -> tuple[str, ...]:
        """The gold path of one of `_WALKERS`, on games of its own; empty where none of its walks wins."""
        java = self.java
        rng, generator = java.make("scala.util.Random", seed), java.server.gameGenerator()
        held, path = [rng, generator], tuple[str, ...]()
        for _ in range(_WALKS):
            game = generator.mkGame(seed, fold)
            agent = java.make(f"textworldexpress.goldagent.{_WALKERS[self.game]}", game)
            walked = agent.mkGoldPath(rng)
            held += [game, agent, walked]
            if walked._1():
                path = java.texts(walked._2())
                break
        java.let_go(*held)
        return path

    def close(self) -> None:
        """End the Java process."""
        if self._java is not None:
            self._java.close()
            self._java = None


def _state(answer: str) -> State:
    said = json.loads(answer)
    return State(
        said["observation"], float(said["score"]), bool(said["tasksuccess"]), bool(said["taskfailure"]),
        sorted(said["validActions"]),
    )  # fmt: skip
