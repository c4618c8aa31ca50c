"""A game in progress, behind one small interface whatever the words come from."""

from __future__ import annotations

from typing import Protocol

from agentdistill.envs.textworld.engine import Engine, Outcome
from agentdistill.envs.textworld.logic import Game


class Renderer(Protocol):
    """Turns a game's facts into words."""

    def goal(self, engine: Engine) -> str:
        """The goal, with which the first observation begins; an empty string where there are no words for it."""

    def first(self, engine: Engine) -> str:
        """The first observation, which states the goal."""

    def after(self, engine: Engine, outcome: Outcome) -> str:
        """The observation after a command."""


class Play(Protocol):
    """One game being played."""

    @property
    def engine(self) -> Engine | None:
        """Knows the game's facts; None where they are not known."""

    @property
    def moved(self) -> bool:
        """Whether the last command did something, or may have, beyond looking at things."""

    @property
    def score(self) -> float:
        """Points so far."""

    @property
    def most(self) -> float:
        """Points in all; 0 where that is not known."""

    @property
    def won(self) -> bool:
        """Whether the game has been won."""

    @property
    def lost(self) -> bool:
        """Whether the game has been lost."""

    @property
    def goal(self) -> str:
        """The goal in words; an empty string where it is not known apart from the first observation."""

    def admissible(self) -> list[str] | None:
        """Commands that are possible now, sorted; None where they are not known."""

    def first(self) -> str:
        """The first observation."""

    def act(self, command: str) -> str:
        """Carry out a command and say what came of it."""

    def close(self) -> None:
        """Free what the game holds."""


class FollowedPlay:
    """What is the same of all games whose facts an engine follows, whoever words them."""

    def __init__(self, game: Game) -> None:
        self.engine = Engine(game)
        self.moved = False

    @property
    def score(self) -> float:
        """What the quests completed so far are worth."""
        return self.engine.score

    @property
    def most(self) -> float:
        """What all quests are worth."""
        return self.engine.game.max_score

    def admissible(self) -> list[str]:
        """Commands that are possible now, sorted."""
        return self.engine.admissible()


class FactPlay(FollowedPlay):
    """Plays the facts alone and words them with a renderer."""

    def __init__(self, game: Game, renderer: Renderer) -> None:
        super().__init__(game)
        self.renderer = renderer

    @property
    def won(self) -> bool:
        """Whether the game has been won."""
        return self.engine.won

    @property
    def lost(self) -> bool:
        """Whether the game has been lost."""
        return self.engine.lost

    @property
    def goal(self) -> str:
        """The goal in words."""
        return self.renderer.goal(self.engine)

    def first(self) -> str:
        """The first observation."""
        return self.renderer.first(self.engine)

    def act(self, command: str) -> str:
        """Carry out a command and say what came of it."""
        outcome = self.engine.step(command)
        self.moved = outcome.kind not in ("invalid", "look", "inventory", "examine")
        return self.renderer.after(self.engine, outcome)

    def close(self) -> None:
        """Nothing to free."""
