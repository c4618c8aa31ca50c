"""The full text of a game: compiled by Inform 7, played in a Z-machine, and followed by the engine.

The interpreter traces the actions it carries out; each is given to `Engine`, so the expert, the admissible commands and
the score come from the same facts as in the other renderings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agentdistill.envs.textworld.games import game_path, generate, require_textworld, write_whole
from agentdistill.envs.textworld.logic import Game
from agentdistill.envs.textworld.play import FollowedPlay
from agentdistill.envs.textworld.settings import Settings
from agentdistill.envs.textworld.story import LOST, REFUSED, WON, clean, command_of, interpreter, is_sound
from agentdistill.errors import UserError

TRACE = re.compile(r"\[([^\]]+)\]\n?")
_DONE = " - succeeded"
_HARMLESS = ("looking", "examining", "taking inventory")


def compiled(challenge: str, settings: Settings, seed: int) -> Path:
    """The `.z8` file of a seed's game, compiled (about 2.5 s) when the cache has no sound one.

    Raises:
        UserError: when Inform 7 cannot compile the game here.
    """
    path = game_path(challenge, settings, seed, ".z8")
    if not is_sound(path):
        game = generate(challenge, settings, seed)
        write_whole(path, lambda temporary: compile_game(game, temporary))
    return path


def compile_game(game: Any, path: Path) -> None:
    """Compile a `textworld.Game` with the Inform 7 that comes with TextWorld.

    Raises:
        UserError: when the compiler is missing, is for another machine, or refuses the game.
    """
    inform7 = require_textworld().generator.inform7
    try:
        inform7.compile_inform7_game(inform7.generate_inform7_source(game), str(path))
    except (OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"TextWorld's Inform 7 could not compile a game for observation 'prose' ({first}); "
            "use observation 'facts', which needs no compiler"
        ) from error


class ProsePlay(FollowedPlay):
    """Plays a `.z8` file.

    Raises:
        UserError: when the file is not a whole story.
    """

    def __init__(self, game: Game, story: Path) -> None:
        if not is_sound(story):
            raise UserError(f"'{story}' is not a complete .z8 game")
        super().__init__(game)
        self.won = self.lost = False
        self._frotz = interpreter(story)

    @property
    def goal(self) -> str:
        """The game's objective."""
        return self.engine.game.objective

    def first(self) -> str:
        """The text from the objective to the first prompt."""
        text, _ = self._frotz.reset()
        self._frotz.step("tw-trace-actions")
        start = text.find(self.engine.game.objective) if self.engine.game.objective else -1
        return clean(text[start if start >= 0 else max(text.find("-= "), 0) :])

    def act(self, command: str) -> str:
        """The game's answer to one command."""
        self.moved = False
        if not (command := command_of(command)):
            return REFUSED
        text, *_ = self._frotz.step(command)
        self.won, self.lost = WON[0] in text, LOST[0] in text
        done = [tag.removesuffix(_DONE).lower() for tag in TRACE.findall(text) if tag.endswith(_DONE) and "(" not in tag]
        self.moved = not all(event.startswith(_HARMLESS) for event in done)
        for event in done:
            self._follow(event)
        return clean(TRACE.sub("", text))

    def close(self) -> None:
        """Free the interpreter."""
        self._frotz.close()

    def _follow(self, event: str) -> None:
        """Tell the engine of an action that the interpreter carried out."""
        for rule in self.engine.game.rules:
            if match := rule.event.fullmatch(event):
                command = rule.template
                for slot, name in zip(rule.slots, match.groups(), strict=True):
                    command = command.replace(f"{{{slot}}}", name)
                if self.engine.step(command).kind != "invalid":
                    return
