"""What makes ALFWorld's engine fast without changing its text: work that it repeats is done once.

It parses the same few grammar rules and command templates anew for every command at every step, copies all that a rule is
about for every word of it, and translates a game's PDDL four times before its first step. Here each parse is kept, names
are shared instead of copied, and the translations of the last few games are kept, so that a group of episodes on one game
shares them.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from agentdistill.errors import UserError

INSTALL = "pip install 'agentdistill[alfworld]' (alfworld 0.4.2; its fast-downward is compiled for some minutes)"
_KEPT_TRANSLATIONS = 8
_KEPT_PARSES = 4096
# The logic's objects are interned for good by `mementos`, some hundreds a game; they are compared by value.
_MOST_INTERNED = 5_000
_lock = threading.RLock()


class Parts:
    """What is used of alfworld and textworld, imported when the first engine is made.

    Raises:
        UserError: when one of them is not installed.
    """

    def __init__(self) -> None:
        try:
            import fast_downward
            import mementos.core
            import textworld
            from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
            from alfworld.agents.utils import misc
            from textworld.envs.pddl import PddlEnv, logic, textgen
        except ImportError as error:
            raise UserError(f"ALFWorld needs packages that are missing ({error}): {INSTALL}") from error
        self.textworld, self.PddlEnv, self.AlfredDemangler, self.misc = textworld, PddlEnv, AlfredDemangler, misc
        self.Grammar = _grammar_class(textgen.ContextSensitiveGrammar)
        self.PddlState = logic.PddlState
        self.interned: dict[Any, Any] = mementos.core._memento_cache
        # The second, optimised translation serves only the engine's planner, which is never asked.
        translate = _translate_once(fast_downward.pddl2sas)
        self.patches = (
            (textgen, "_parse_and_convert", _once(textgen._parse_and_convert)),
            (textgen, "copy_context", _shared_context),
            (textgen.Symbol, "copy", _shallow_symbol),
            (textworld.logic, "_parse_and_convert", _once(textworld.logic._parse_and_convert)),
            (logic, "_parse_and_convert", _keep(logic._parse_and_convert)),
            (fast_downward, "pddl2sas", lambda domain, problem, **options: translate(domain, problem)),
        )

    def forget_interned(self) -> None:
        """Bound the memory that interned objects take; those in use live on."""
        if len(self.interned) > _MOST_INTERNED:
            self.interned.clear()


@functools.cache
def parts() -> Parts:
    """See `Parts`."""
    return Parts()


@contextlib.contextmanager
def fast() -> Iterator[None]:
    """While inside, the engine uses what has been parsed and translated before; afterwards all is as it was."""
    with _lock:
        patches = parts().patches
        kept = [getattr(module, name) for module, name, _ in patches]
        try:
            for module, name, replacement in patches:
                setattr(module, name, replacement)
            yield
        finally:
            for (module, name, _), original in zip(patches, kept, strict=True):
                setattr(module, name, original)


@contextlib.contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """While inside, a module's global is another; other threads with an engine wait."""
    with _lock:
        kept = getattr(module, name)
        setattr(module, name, value)
        try:
            yield
        finally:
            setattr(module, name, kept)


def _translate_once(translate: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
    @functools.lru_cache(maxsize=_KEPT_TRANSLATIONS)
    def translate_once(domain: str, problem: str) -> Any:
        arguments = sys.argv
        try:
            return translate(domain, problem)
        finally:
            sys.argv = arguments  # the translator leaves its own there

    return translate_once


def _keep(parse: Callable[..., Any]) -> Callable[..., Any]:
    """`parse` that keeps its results, which nobody writes into."""

    @functools.lru_cache(maxsize=_KEPT_PARSES)
    def kept(text: str, options: tuple[tuple[str, Any], ...]) -> Any:
        return parse(text, **dict(options))

    return lambda text, **options: kept(text, tuple(sorted(options.items())))


def _once(parse: Callable[..., Any]) -> Callable[..., Any]:
    """`parse` that keeps its results, and gives copies because the engine writes into them."""
    kept = _keep(parse)
    return lambda text, **options: copy.deepcopy(kept(text, **options))


def _shared_context(context: dict[str, Any]) -> dict[str, Any]:
    """A context whose variables can be added to; the original also copies each of them, though none is ever changed."""
    return {**context, "variables": dict(context["variables"]), "mapping": dict(context["mapping"])}


def _shallow_symbol(symbol: Any, context: dict[str, Any]) -> Any:
    """A symbol in another context; the original copies the old context too, and then drops it."""
    new = copy.copy(symbol)
    new.context = _shared_context(context)
    return new


def _grammar_class(base: Any) -> Any:
    class Grammar(base):  # type: ignore[misc]
        """The grammar of one game that remembers how it worded each command.

        Args:
            of: the grammar of every game.
            goal: stands in its rule `task` for this game.
        """

        def __init__(self, of: Any, goal: str) -> None:
            super().__init__()
            self.update(of)
            self._rules["task"] = base.parse(json.dumps({"task": [{"rhs": f"Your task is to: {goal}."}]}))._rules["task"]
            self._commands: dict[Any, str] = {}

        def derive(self, start: str, context: Any = None) -> str:
            # Command templates hold names, and one condition on where receptacles stand, which no action changes.
            if "#" in start or ("|" in start and "receptacleatlocation(" not in start):
                return str(super().derive(start, context))
            used = _words(start)
            key = start, *((name.name, value.name) for name, value in context["mapping"].items() if name.name in used)
            if key not in self._commands:
                self._commands[key] = str(super().derive(start, context))
            return self._commands[key]

    return Grammar


@functools.cache
def _words(template: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", template))
