"""One game as a task: how it starts, how long it may take, and who knows how to win it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from agentdistill.durable import digest
from agentdistill.envs.textworld.collection import UserGame, user_games
from agentdistill.envs.textworld.compact import Compact
from agentdistill.envs.textworld.engine import Engine
from agentdistill.envs.textworld.expert import expert_action
from agentdistill.envs.textworld.games import load_game
from agentdistill.envs.textworld.play import FactPlay, Play, Renderer
from agentdistill.envs.textworld.prose import ProsePlay, compiled
from agentdistill.envs.textworld.sentences import Sentences
from agentdistill.envs.textworld.settings import Settings
from agentdistill.envs.textworld.story import StoryPlay
from agentdistill.envs.textworld.walkthrough import Walkthrough, winning
from agentdistill.errors import UserError

RENDERERS: dict[str, type[Renderer]] = {"compact": Compact, "facts": Sentences}
OBSERVATIONS = (*RENDERERS, "prose")
# A plan longer than this means that the expert walks in circles, which would be a mistake of ours.
LONGEST_PLAN = 1000
_SHORTEST, _UNKNOWN = 50, 100  # turn limits of users' games: at least, and where nothing tells how long one takes


class Expert(Protocol):
    """The expert of one episode."""

    def see(self, command: str, play: Play) -> None:
        """Take note of a command that was carried out."""

    def command(self) -> str | None:
        """What it would do now; None where it knows nothing."""


class Task(Protocol):
    """One game."""

    id: str

    @property
    def max_turns(self) -> int:
        """Turns that leave a careful player room."""

    def start(self) -> Play:
        """The game at its start."""

    def expert(self, play: Play) -> Expert:
        """Its expert, for an episode that begins."""

    def plan(self) -> str | None:
        """Commands that win it, separated by commas; None where nobody knows."""


class GeneratedTask:
    """The game that TextWorld makes of a challenge, its settings and a seed."""

    def __init__(self, challenge: str, settings: Settings, seed: int, observation: str) -> None:
        self.id, self.max_turns = f"{challenge}-{seed}", settings.max_turns()
        self._made, self._observation = (challenge, settings, seed), observation

    def start(self) -> Play:
        """See `Task`."""
        game = load_game(*self._made)
        if self._observation == "prose":
            return ProsePlay(game, compiled(*self._made))
        return FactPlay(game, RENDERERS[self._observation]())

    def expert(self, play: Play) -> Expert:
        """See `Task`."""
        return _Scripted(play)

    def plan(self) -> str:
        """See `Task`."""
        engine = Engine(load_game(*self._made))
        commands: list[str] = []
        while len(commands) < LONGEST_PLAN and (command := expert_action(engine)) is not None:
            commands.append(command)
            engine.step(command)
        return ", ".join(commands)


class UserTask:
    """A game of the user's: in prose where it is compiled, unless asked for otherwise, and else from its facts.

    Raises:
        UserError: when it cannot be shown as asked for.
    """

    def __init__(self, game: UserGame, observation: str | None) -> None:
        self.id, self._game = game.task, game
        self.observation = observation or ("prose" if game.story else "compact")
        if self.observation == "prose" and game.story is None:
            raise UserError(f"observation 'prose' needs a compiled .z8 game, and there is none beside '{game.path}'")
        if self.observation != "prose" and game.described is None:
            raise UserError(
                f"observation '{self.observation}' needs TextWorld's description of a game, and beside '{game.path}' there is "
                f"no '{game.path.with_suffix('.json').name}'; use observation 'prose'"
            )

    @property
    def max_turns(self) -> int:
        """Three times the walkthrough, and at least 50; 100 where there is none."""
        commands = self._game.game()[1] if self._game.described else ()
        return max(_SHORTEST, 3 * len(commands)) if commands else _UNKNOWN

    def start(self) -> Play:
        """See `Task`."""
        if self._game.described is None:
            return StoryPlay(self._game.path)
        if self.observation == "prose":
            return ProsePlay(self._game.game()[0], self._game.path)
        return FactPlay(self._game.game()[0], RENDERERS[self.observation]())

    def expert(self, play: Play) -> Expert:
        """See `Task`."""
        return _Followed(self)

    def plan(self) -> str | None:
        """See `Task`."""
        return ", ".join(self.walkthrough) or None

    def files(self) -> dict[str, str]:
        """Fingerprints of its story and description: the first digits of their SHA-256."""
        both = (self._game.story, self._game.described)
        return {f"{self.id}{file.suffix}": digest(file)[:12] for file in both if file is not None}

    @cached_property
    def walkthrough(self) -> tuple[str, ...]:
        """The stored walkthrough up to the win, where it does win in a trial of its own."""
        return winning(self._game.game()[1], self.start) if self._game.described else ()


class _Scripted:
    """`expert_action` on the facts of a game being played."""

    def __init__(self, play: Play) -> None:
        self._play = play

    def see(self, command: str, play: Play) -> None:
        """The facts say it all."""

    def command(self) -> str | None:
        """See `Expert`."""
        over = self._play.won or self._play.lost or self._play.engine is None
        return None if over or self._play.engine is None else expert_action(self._play.engine)


class _Followed:
    """A walkthrough, held to be right only when somebody asks for it, since that takes a trial."""

    def __init__(self, task: UserTask) -> None:
        self._task, self._seen = task, list[tuple[str, bool]]()

    def see(self, command: str, play: Play) -> None:
        """See `Expert`."""
        self._seen.append((command, play.moved))

    def command(self) -> str | None:
        """See `Expert`."""
        path = Walkthrough(self._task.walkthrough)
        for command, moved in self._seen:
            path.see(command, moved)
        return path.command()


def user_tasks(
    games: str | Sequence[str], split_by: str | None, observation: str | None
) -> tuple[list[Task], dict[str, list[int]]]:
    """A user's games as tasks, and positions by split (see `collection.user_games`)."""
    found, splits = user_games(games, split_by)
    return [UserTask(game, observation) for game in found], splits
