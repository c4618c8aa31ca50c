"""Observations for tiny models: only what changed and what is needed to act, in as few words as possible."""

from __future__ import annotations

from collections.abc import Sequence

from agentdistill.envs.textworld.engine import COOKING, CUTTING, Engine, Outcome, cookbooks
from agentdistill.envs.textworld.words import goal, states, steps

DONE = {"take": "taken", "drop": "dropped", "make": "meal ready", "invalid": "no"}


class Compact:
    """Renders a game in fragments; see `TextWorldEnv` for the other renderings."""

    def goal(self, engine: Engine) -> str:
        """The goal, as far as a few words can say it."""
        return "cook the recipe" if engine.recipe else goal(engine.game) if engine.game.objective else ""

    def first(self, engine: Engine) -> str:
        """The goal, the first room, and what is in hand."""
        held = f"have: {_names(engine, engine.held())}" if engine.held() else ""
        return "\n".join(part for part in (self.goal(engine), self.room(engine), held) if part)

    def room(self, engine: Engine) -> str:
        """Holders with what lies in or on them, closed containers, what can be used or taken, and ways out."""
        name, ways = engine.game.names, engine.exits(engine.room)
        closed, here, lines = [], [], [name[engine.room]] if ways else []
        for thing in engine.inside(engine.room):
            if not engine.is_open(thing):
                closed.append(name[thing])
            elif inside := engine.inside(thing):
                lines.append(f"{name[thing]}: {_names(engine, inside)}")
            elif self._useful(engine, thing):
                here.append(name[thing])
        lines += [f"closed: {', '.join(closed)}"] if closed else []
        lines += [f"here: {', '.join(here)}"] if here else []
        lines += [f"exits: {', '.join(w.direction + _door(engine, w.door) for w in ways)}"] if ways else []
        return "\n".join(lines) or name[engine.room]

    def after(self, engine: Engine, outcome: Outcome) -> str:
        """What an action did."""
        name = engine.game.names
        if engine.won or engine.lost:
            return "you win" if engine.won else "you lose"
        match outcome.kind, outcome.objects:
            case ("go" | "look", _):
                return self.room(engine)
            case ("inventory", _):
                return f"have: {_names(engine, engine.held())}"
            case ("examine", [thing]):
                return self._examined(engine, thing)
            case ("open", [thing]) if not engine.game.is_a(thing, "d"):
                return f"{name[thing]}: {_names(engine, engine.inside(thing))}"
        changed = [fact[0] for fact in outcome.added if fact[0] in {*COOKING, *CUTTING, "burned"}]
        return changed[0] if changed else DONE.get(outcome.kind, "ok")

    def _examined(self, engine: Engine, thing: str) -> str:
        if thing in cookbooks(engine.game):
            return "; ".join(f"{engine.game.names[i.food]}: {', '.join(steps(i))}" for i in engine.recipe)
        if engine.is_open(thing) and (inside := engine.inside(thing)):
            return f"{engine.game.names[thing]}: {_names(engine, inside)}"
        return ", ".join(states(engine, thing)) or "ok"

    def _useful(self, engine: Engine, thing: str) -> bool:
        """Whether an empty thing matters: it can be taken, cooked with, or a quest names it."""
        kinds = ("o", "stove", "oven", "toaster")
        wanted = any(thing in fact for quest in engine.game.quests for event in quest.win for fact in event)
        return wanted or any(engine.game.is_a(thing, kind) for kind in kinds)


def _names(engine: Engine, things: Sequence[str]) -> str:
    return ", ".join(engine.game.names[thing] for thing in things) or "nothing"


def _door(engine: Engine, door: str) -> str:
    if not door:
        return ""
    return f" ({'open' if engine.is_open(door) else 'closed'} {engine.game.names[door]})"
