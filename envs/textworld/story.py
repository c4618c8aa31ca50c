"""The interpreter of compiled games (Z-machine stories), and games of which nothing is known but what they print."""

from __future__ import annotations

import importlib
import re
import warnings
from pathlib import Path
from typing import Any

# Endings of story files by Z-machine version, and how many bytes a unit of the length in the header is (Standard 1.1, §11.1.6).
STORIES = {".z3": 2, ".z4": 4, ".z5": 4, ".z7": 8, ".z8": 8}
# What TextWorld's games end with, and what Inform's own library does.
WON, LOST = ("*** The End ***", "*** You have won ***"), ("*** You lost! ***", "*** You have died ***")
# They act on the interpreter instead of the game, write files, or (tw-…, $…, #…) print its hidden state. A command may have
# several parts, and a story's dictionary keeps nine or six letters of a word, so words beginning like these are taken for them.
META = re.compile(
    r"(?:\A|[.,;:\"]|\b(?:then|and|oops|o)\b)\s*"
    r"(?:(?:q|quit|save|undo|(?:restar|restor|verify|versio|script|transc|unscri|noscri)\w*)\b|tw-|[$#])",
    re.I,
)
REFUSED = "That's not a verb I recognise."
_STATUS = re.compile(r"\n>[^\n]*\Z")
_ENDED = re.compile(r"\n+Would you like to RESTART.*\Z", re.S)
_SCORE = re.compile(r"(-?\d+) ?/ ?\d+\s*\Z|Score: ?(-?\d+)")  # at the right of the status line: score and turns
_TOTAL = re.compile(r"scored (-?\d+)(?: points?)? out of (?:a (?:possible|total of) )?\d+")  # what the standard endings say
_TITLE = "\\$$$$$"  # in the letters that TextWorld's games begin with
_LONGEST = 190  # bytes of a command; the interpreter takes 198
_SEED = 1  # of the interpreter's random numbers; 0 would be the clock


def is_sound(path: Path) -> bool:
    """Whether a file is a whole Z-machine story of the version its ending says, by the length and checksum in its header.

    The interpreter is C and may take the process down with it when given anything else (Z-Machine Standard 1.1, §11.1).
    """
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if len(data) < 64 or path.suffix not in STORIES or data[0] != int(path.suffix[2]):
        return False
    length, checksum = int.from_bytes(data[0x1A:0x1C], "big") * STORIES[path.suffix], int.from_bytes(data[0x1C:0x1E], "big")
    return 64 <= length <= len(data) and sum(data[64:length]) % 65_536 == checksum


def interpreter(story: Path) -> Any:
    """A `jericho.FrotzEnv` that plays a sound story the same way every time."""
    jericho = importlib.import_module("jericho")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of games for which Jericho knows no addresses, which is nearly all of them
        return jericho.FrotzEnv(str(story), _SEED)


def command_of(action: str) -> str:
    """An action as the interpreter takes it; empty where it is for the interpreter itself and not for the game.

    Control characters are its keys to undo, restart and quit, a backslash begins a command to it, and at some of either it
    waits for ever.
    """
    spaced = " ".join(action.encode("ascii", "replace").decode().split())
    command = "".join(c if c.isprintable() and c != "\\" else "?" for c in spaced)[:_LONGEST]
    return "" if META.search(command) else command or "look"


def clean(text: str) -> str:
    """Without the status line, the prompt, the question at the end, and runs of blank lines and spaces."""
    text = _ENDED.sub("", _STATUS.sub("", text))
    text = re.sub(r"[ \t]{3,}|[ \t]+(?=\n)", " ", text)
    return re.sub(r"\n\s*\n\s*", "\n\n", text).strip()


class StoryPlay:
    """Plays a compiled game without a description: text, and score and end as far as the interpreter or the text tells them.

    Jericho knows where a few dozen classic games keep their score and how they end; for others it is the status line and the
    words of the standard endings.
    """

    engine, moved, goal = None, True, ""

    def __init__(self, story: Path) -> None:
        self._frotz = interpreter(story)
        self.won = self.lost = False
        self.score, self.most, self._textworld = 0.0, 0.0, False

    def first(self) -> str:
        """The text up to the first prompt."""
        text, _ = self._frotz.reset()
        self._textworld = _TITLE in text
        self._read(text)
        return clean(text[max(text.find("-= "), 0) :] if self._textworld else text)

    def act(self, command: str) -> str:
        """The game's answer to one command."""
        if not (command := command_of(command)):
            return REFUSED
        text, *_ = self._frotz.step(command)
        self._read(text)
        return clean(text)

    def admissible(self) -> None:
        """Nobody knows."""
        return

    def close(self) -> None:
        """Free the interpreter."""
        self._frotz.close()

    def _read(self, text: str) -> None:
        known = bool(self._frotz.is_fully_supported)
        if known:
            self.score, self.most = float(self._frotz.get_score()), float(self._frotz.get_max_score())
        elif (status := _STATUS.search(text)) and (found := _SCORE.search(status[0])):
            self.score = float(found[1] or found[2])
        if not known and (total := _TOTAL.search(text)):
            self.score = float(total[1])
        ends = WON if self._textworld else WON[1:]  # any story may be at an end; TextWorld's are then won
        self.won = self._frotz.victory() if known else any(end in text for end in ends)
        ended = self._frotz.game_over() if known else _ENDED.search(text) is not None
        self.lost = not self.won and (ended or any(end in text for end in LOST))
