"""What no text environment should have to look after: calls in the order that Gymnasium asks for, with fit arguments."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from agentdistill.errors import UserError
from agentdistill.faults import one_line
from agentdistill.option_types import misfit

OPEN, OVER, CLOSED, NEW, FAILED = (
    "an episode is on",
    "the episode has ended",
    "the environment is closed",
    "",
    "its reset failed",
)
STEPPING, RESETTING = "in step", "in reset"


class Guarded:
    """Puts guards around `__init__`, `reset`, `step` and `close` of every subclass, wherever it has them from.

    A chain of `super()` calls is one call to them, and so is a `reset` or `close` that a `step` makes itself.
    """

    _guarded_state = NEW
    reset: Callable[..., Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Guard what the class defines, and what it takes from a class that has no guards."""
        super().__init_subclass__(**kwargs)
        for name, guard in _GUARDS.items():
            owner = next(each for each in cls.__mro__ if name in each.__dict__)
            own = owner.__dict__[name]
            foreign = name != "__init__" and owner is not gym.Env and not issubclass(owner, Guarded)
            if (owner is cls or foreign) and inspect.isfunction(own):
                setattr(cls, name, guard(own))


def _init(own: Callable[..., None]) -> Callable[..., None]:
    """An `__init__` that refuses options of another type than it names, however the environment is made."""

    @functools.wraps(own)
    def init(self: Guarded, *args: Any, **kwargs: Any) -> None:
        if wrong := misfit(own, kwargs):
            raise UserError(f"{type(self).__name__} did not accept an option: {one_line(wrong, 300)}")
        own(self, *args, **kwargs)

    return init


def _reset(own: Callable[..., Any]) -> Callable[..., Any]:
    """A `reset` that takes any whole number for a seed; where it fails, no episode is on."""

    @functools.wraps(own)
    def reset(self: Guarded, *args: Any, **kwargs: Any) -> Any:
        if self._guarded_state == RESETTING:
            return own(self, *args, **kwargs)
        if kwargs.get("seed") is not None:
            kwargs["seed"] = _whole(kwargs["seed"])
        if not isinstance(kwargs.get("options"), Mapping | None):
            given = kwargs["options"]
            raise UserError(
                f"options of a reset are a mapping, and {one_line(repr(given), 80)} is of type {type(given).__name__}"
            )
        self._guarded_state = RESETTING
        try:
            answer = own(self, *args, **kwargs)
        except BaseException:
            self._guarded_state = FAILED
            raise
        self._guarded_state = OPEN
        return answer

    return reset


def _step(own: Callable[..., Any]) -> Callable[..., Any]:
    """A `step` that is for an episode which is on, refuses what is no text, and gets `?` for half of a surrogate pair, which
    nothing else could take."""

    @functools.wraps(own)
    def step(self: Guarded, action: str, *args: Any, **kwargs: Any) -> Any:
        if self._guarded_state == STEPPING:
            return own(self, action, *args, **kwargs)
        if self._guarded_state != OPEN and type(self).reset is not gym.Env.reset:  # without one of its own no episode begins
            raise ResetNeeded(": ".join(filter(None, (self._guarded_state, "call reset() before a step"))))
        if not isinstance(action, str):
            raise UserError(f"an action is text, and {one_line(repr(action), 80)} is of type {type(action).__name__}")
        over, self._guarded_state = False, STEPPING
        try:
            answer = own(self, action if action.isascii() else action.encode("utf-8", "replace").decode(), *args, **kwargs)
            over = _ends(answer)
        finally:
            if self._guarded_state == STEPPING:  # else it was closed, or reset, meanwhile
                self._guarded_state = OVER if over else OPEN
        return answer

    return step


def _close(own: Callable[..., Any]) -> Callable[..., Any]:
    """A `close` after which nothing goes on without a reset, also where it raises."""

    @functools.wraps(own)
    def close(self: Guarded, *args: Any, **kwargs: Any) -> Any:
        try:
            return own(self, *args, **kwargs)
        finally:
            if self._guarded_state != RESETTING:  # a reset may close what was before
                self._guarded_state = CLOSED

    return close


_GUARDS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "__init__": _init, "reset": _reset, "step": _step, "close": _close,
}  # fmt: skip


def _whole(seed: Any) -> int:
    try:
        number = None if isinstance(seed, bool | np.bool_) else operator.index(seed)
    except TypeError:
        number = None
    if number is None or number < 0:
        what = f"of type {type(seed).__name__}" if number is None else "below 0"
        raise UserError(f"a seed is a whole number from 0 on, and {one_line(repr(seed), 80)} is {what}")
    return number


def _ends(answer: Any) -> bool:
    """Whether a step's answer ends the episode; one that is no such answer is for others to judge."""
    if not isinstance(answer, tuple | list) or len(answer) != 5:
        return False
    return any(isinstance(flag, bool | np.bool_ | int) and bool(flag) for flag in answer[2:4])
