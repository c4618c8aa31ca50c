"""The expert of a user's game: the walkthrough that its author stored, where it wins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentdistill.envs.textworld.play import Play


class Walkthrough:
    """Goes along a walkthrough. Commands that do nothing, or only look at things, keep it on its path; others end it."""

    def __init__(self, commands: Sequence[str]) -> None:
        self.commands = tuple(commands)
        self._next: int | None = 0

    def see(self, command: str, moved: bool) -> None:
        """Take note of a command that was carried out, and whether it did anything (`Play.moved`)."""
        if self._next is None:
            return
        if self._next < len(self.commands) and command.split() == self.commands[self._next].split():
            self._next += 1
        elif moved:
            self._next = None

    def command(self) -> str | None:
        """The next command; None where there is none, or the path was left."""
        return None if self._next is None or self._next >= len(self.commands) else self.commands[self._next]


def winning(commands: Sequence[str], start: Callable[[], Play]) -> tuple[str, ...]:
    """The commands up to the win in a new game; none where they do not win it."""
    play = start()
    try:
        play.first()
        for count, command in enumerate(commands, start=1):
            play.act(command)
            if play.won or play.lost:
                return tuple(commands[:count]) if play.won else ()
    finally:
        play.close()
    return ()
