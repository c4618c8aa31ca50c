"""Observations in full English sentences, made from the game's facts: no compiler needed, and as fast as `compact`."""

from __future__ import annotations

from collections.abc import Sequence

from agentdistill.envs.textworld.engine import COOKING, CUTTING, Engine, Outcome, cookbooks
from agentdistill.envs.textworld.words import states

INVALID = {
    "missing": "You still miss something.",
    "uncooked": "Something still needs to be cooked.",
    "uncut": "Something still needs to be cut.",
    "place": "You can't prepare a meal here.",
    "see": "You can't see any such thing.",
    "possible": "You can't do that now.",
    "verb": "That's not a command you can use.",
}
DONE = {
    "take": "You take the {}.",
    "remove": "You take the {} from the {}.",
    "drop": "You drop the {}.",
    "put": "You put the {} on the {}.",
    "insert": "You put the {} into the {}.",
    "open": "You open the {}.",
    "close": "You close the {}.",
    "lock": "You lock the {} with the {}.",
    "unlock": "You unlock the {} with the {}.",
    "eat": "You eat the {}.",
    "drink": "You drink the {}.",
    "make": "You prepare the meal. You now carry it.",
}


class Sentences:
    """Renders a game in sentences; see `TextWorldEnv` for the other renderings."""

    def goal(self, engine: Engine) -> str:
        """The objective."""
        return engine.game.objective

    def first(self, engine: Engine) -> str:
        """The objective, the first room, and what is in hand."""
        held = f"\n{self._held(engine)}" if engine.held() else ""
        return f"{engine.game.objective}\n\n{self.room(engine)}{held}".strip()

    def room(self, engine: Engine) -> str:
        """The room, its furniture and contents, and its ways out."""
        lines = [f"You are in the {engine.game.names[engine.room]}."]
        floor = [thing for thing in engine.inside(engine.room) if engine.game.is_a(thing, "o")]
        for thing in engine.inside(engine.room):
            if thing not in floor:
                lines.append(self._furniture(engine, thing))
        if floor:
            lines.append(f"On the floor {_are(floor)} {_listed(engine, floor)}.")
        for way in engine.exits(engine.room):
            if way.door:
                state = next(iter(states(engine, way.door)), "closed")
                lines.append(f"To the {way.direction} there is {_a(f'{state} {engine.game.names[way.door]}')}.")
        if free := [way.direction for way in engine.exits(engine.room) if not way.door]:
            lines.append(f"You can go {_joined(free)}.")
        return " ".join(lines)

    def after(self, engine: Engine, outcome: Outcome) -> str:
        """What an action did, and how the game ended if it did."""
        end = " You win!" if engine.won else " You lose." if engine.lost else ""
        return self._happened(engine, outcome) + end

    def _happened(self, engine: Engine, outcome: Outcome) -> str:
        names = [engine.game.names[thing] for thing in outcome.objects]
        match outcome.kind, outcome.objects:
            case ("go" | "look", _):
                text = self.room(engine)
            case ("inventory", _):
                text = self._held(engine)
            case ("examine", [thing]):
                text = self._examined(engine, thing)
            case ("open", [thing]) if not engine.game.is_a(thing, "d"):
                inside = engine.inside(thing)
                contents = f", revealing {_listed(engine, inside)}." if inside else ". It is empty."
                text = f"You open the {names[0]}{contents}"
            case _:
                text = self._done(outcome, names)
        return text

    def _done(self, outcome: Outcome, names: Sequence[str]) -> str:
        if outcome.kind == "invalid":
            return INVALID[outcome.reason]
        verbs = {**COOKING, **CUTTING, "burned": "burn"}
        if changed := [verbs[fact[0]] for fact in outcome.added if fact[0] in verbs]:
            return f"You {changed[0]} the {names[0]}."
        kind = "remove" if outcome.kind == "take" and len(names) > 1 else outcome.kind
        return DONE.get(kind, "Done.").format(*names)

    def _furniture(self, engine: Engine, thing: str) -> str:
        name, inside = engine.game.names[thing], engine.inside(thing)
        state = "".join(f"{s} " for s in states(engine, thing) if s in ("closed", "locked", "open"))
        if not engine.is_open(thing):
            return f"There is {_a(state + name)}."
        if not inside:
            return f"There is {_a(state + name)}, which is empty." if state else f"There is {_a(f'empty {name}')}."
        preposition = "In" if engine.game.is_a(thing, "c") else "On"
        return f"{preposition} the {name} {_are(inside)} {_listed(engine, inside)}."

    def _examined(self, engine: Engine, thing: str) -> str:
        name = engine.game.names[thing]
        text = engine.game.descriptions.get(thing, "")
        if thing in cookbooks(engine.game) or (text and "[" not in text):
            return text.strip()
        if engine.is_open(thing) and engine.inside(thing):
            return self._furniture(engine, thing)
        seen = states(engine, thing)
        return f"The {name} is {_joined(seen)}." if seen else f"You see nothing special about the {name}."

    def _held(self, engine: Engine) -> str:
        return f"You carry {_listed(engine, engine.held()) if engine.held() else 'nothing'}."


def _listed(engine: Engine, things: Sequence[str]) -> str:
    """Things with their articles and what can be seen of their state: `a diced fried red onion and some milk`."""
    said = []
    for thing in things:
        state = [s for s in states(engine, thing) if s in {*CUTTING, *COOKING, "burned"}]
        if ("needs_cooking", thing) in engine.facts:
            state.append("raw")
        phrase = " ".join([*state, engine.game.names[thing]])
        article = engine.game.articles.get(thing)
        said.append(f"{article} {phrase}" if article else _a(phrase))
    return _joined(said)


def _joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _a(phrase: str) -> str:
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def _are(things: Sequence[str]) -> str:
    return "is" if len(things) == 1 else "are"
