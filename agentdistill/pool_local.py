"""Environments in slots of one process: this one, or a worker's."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium as gym

from agentdistill import environment
from agentdistill.environment import Answer, EnvironmentFault
from agentdistill.faults import described, fault

Env = gym.Env[str, str]
RandomState = tuple[Any, ...]


class Question(NamedTuple):
    """Something to ask the environment of a slot: a name in `CALLS`, and arguments for it."""

    slot: int
    call: str
    arguments: tuple[Any, ...] = ()


def _random_action(env: Env, state: RandomState) -> tuple[str, RandomState]:
    """The action, and the generator's state after it: a generator of another process would not be moved on."""
    rng = random.Random()
    rng.setstate(state)
    return environment.random_action(env, rng), rng.getstate()


CALLS: Mapping[str, Callable[..., Any]] = {
    "reset": environment.reset,
    "step": environment.step,
    "system_prompt": environment.system_prompt,
    "expert_action": environment.expert_action,
    "plan": environment.plan,
    "run_metadata": environment.run_metadata,
    "random_action": _random_action,
}


class LocalEnvironments:
    """Environments made on demand and used again; a slot whose environment failed gets a new one.

    Args:
        env_id: registered Gymnasium id.
        options: keyword arguments for the environment.
    """

    def __init__(self, env_id: str, options: Mapping[str, Any]) -> None:
        self.env_id, self.options = env_id, dict(options)
        self._envs: dict[int, Env] = {}
        self._spare: list[Env] = []

    def env(self, slot: int) -> Env:
        """The environment of a slot."""
        if slot not in self._envs:
            self._envs[slot] = self._spare.pop() if self._spare else environment.make(self.env_id, **self.options)
        return self._envs[slot]

    def free(self, slot: int) -> None:
        """Give a slot's environment to the next slot that wants one."""
        if slot in self._envs:
            self._spare.append(self._envs.pop(slot))

    def ask(self, question: Question) -> Any:
        """The environment's answer; one that is at fault is closed and thrown away.

        Raises:
            EnvironmentFault: when the environment raises or breaks its contract.
            UserError: when it cannot be made.
        """
        env = self.env(question.slot)
        began = time.perf_counter()
        try:
            answer = CALLS[question.call](env, *question.arguments)
        except EnvironmentFault as broken:
            del self._envs[question.slot]
            if (error := _closed(env)) is None:
                raise
            raise EnvironmentFault(f"{broken}, and then in close(): {described(error)}") from broken
        if isinstance(answer, Answer):
            answer.seconds = time.perf_counter() - began
        return answer

    def ask_all(self, questions: Sequence[Question]) -> list[Any]:
        """The answers in order; after a fault, which is its answer, nothing more is asked of a slot."""
        answers: list[Any] = []
        lost: dict[int, EnvironmentFault] = {}
        for question in questions:
            if question.slot not in lost:
                try:
                    answers.append(self.ask(question))
                    continue
                except EnvironmentFault as broken:
                    lost[question.slot] = broken
            answers.append(lost[question.slot])
        return answers

    def converse(self, questions: Sequence[Question], take: Callable[[int, Any], Question | None]) -> None:
        """Ask questions, and what follows from the answers.

        Args:
            questions: of one slot each.
            take: gets the index of a question and its answer, or the fault it met with, and gives the question of the same slot
                that comes next in its place, or None.

        Raises:
            UserError: when an environment cannot be made.
        """
        for index, first in enumerate(questions):
            question: Question | None = first
            while question is not None:
                (answer,) = self.ask_all([question])
                question = take(index, answer)

    def close(self) -> list[str]:
        """Close every environment; a sentence for each that failed in it."""
        envs, self._envs, self._spare = [*self._envs.values(), *self._spare], {}, []
        errors = [error for env in envs if (error := _closed(env)) is not None]
        return [str(fault(self.env_id, "close()", error)) for error in errors]


def _closed(env: Env) -> BaseException | None:
    """Close an environment; what it raised, if it did."""
    try:
        env.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    return None
