"""An episode as text, played by whoever answers for the environment: what `EnvPool.play` plays side by side."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Play = Generator[tuple[str, tuple[Any, ...]], Any, T]
"""Yields a call of `pool_local.CALLS` and its arguments, and is sent the answer; an environment's fault is raised in it."""


@dataclass(slots=True)
class Episode:
    """An episode as text.

    Attributes:
        observations: the first one, and one after each action.
        ended: whether the environment ended it, by success, failure or a limit of its own.
    """

    seed: int
    task_id: str
    actions: list[str]
    observations: list[str]
    success: bool = False
    ended: bool = False


def episode(seed: int, max_turns: int, actions: Sequence[str] | None = None) -> Play[Episode]:
    """For `EnvPool.play`: play given actions, or the environment's expert, until the end, the limit, or no further action."""
    first = yield "reset", (seed,)
    out = Episode(seed, first.task_id, [], [first.observation])
    while len(out.actions) < max_turns and not out.ended:
        if actions is None:
            action = yield "expert_action", ()
        else:
            action = actions[len(out.actions)] if len(out.actions) < len(actions) else None
        if action is None:
            break
        answer = yield "step", (action,)
        out.actions.append(action)
        out.observations.append(answer.observation)
        out.success = out.success if answer.success is None else answer.success
        out.ended = answer.terminated or answer.truncated
    return out
