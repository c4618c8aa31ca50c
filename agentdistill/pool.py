"""N environments of one kind, in this process or in workers. One that fails takes down its own episode only."""

from __future__ import annotations

import random
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import gymnasium as gym

from agentdistill.environment import Answer, EnvironmentFault
from agentdistill.episode import Play, episode
from agentdistill.pool_local import LocalEnvironments, Question
from agentdistill.pool_workers import WorkerEnvironments, Workers

__all__ = ["Answer", "EnvPool", "EnvironmentFault", "Play", "Question", "Workers"]


T = TypeVar("T")
BESIDE = 4  # episodes a worker, so that it has something to do while another's answer is on its way


class EnvPool:
    """Environments in slots, made on demand and used again; a slot whose environment failed gets a new one.

    Where they are changes no answer: episodes are the same in this process and with any number of workers.

    Args:
        env_id: registered Gymnasium id.
        options: keyword arguments for the environment.
        workers: put the environments into so many processes; None: into this one, which is faster where a step takes less
            than a tenth of a millisecond.
    """

    def __init__(self, env_id: str, options: Mapping[str, Any] | None = None, *, workers: Workers | None = None) -> None:
        self.env_id, self.options = env_id, dict(options or {})
        self._expert: dict[tuple[int, int], list[str] | EnvironmentFault | None] = {}
        self._here = LocalEnvironments(self.env_id, self.options)
        self._away = WorkerEnvironments(self.env_id, self.options, workers) if workers is not None and workers.count else None

    def env(self, slot: int) -> gym.Env[str, str]:
        """The environment of a slot, where it is in this process."""
        if self._away is not None:
            raise RuntimeError(f"the environments of '{self.env_id}' are in worker processes; ask them, or take the prototype")
        return self._here.env(slot)

    def prototype(self) -> gym.Env[str, str]:
        """An environment of this kind in this process, for what all of them have in common: splits, tools, call format.

        Its state means nothing: with workers nobody plays it, and without it is that of the first slot.
        """
        return self._here.env(0)

    def ask(self, questions: Sequence[Question]) -> list[Any]:
        """Ask many slots at once; workers answer side by side. A slot's questions are asked in their order.

        Returns:
            An answer a question, or the `EnvironmentFault` that its slot met with; after one, nothing more is asked of a slot.

        Raises:
            UserError: when an environment cannot be made, or no worker can be started.
        """
        return (self._away or self._here).ask_all(questions)

    @property
    def away(self) -> bool:
        """Whether the environments are in worker processes, which step while this one does something else."""
        return self._away is not None

    def put(self, questions: Sequence[Question]) -> None:
        """Ask slots whose episodes have begun, one question each, without waiting for the answers, which `collect` gives.

        Raises:
            RuntimeError: without workers. Otherwise as `ask`.
        """
        self._workers().put(questions)

    def collect(self, *, wait: bool) -> list[tuple[int, Any]]:
        """The answers that have come to what was `put`: slots, each with its answer or the fault that it met with.

        Args:
            wait: until there is one at least, if there is any to come.
        """
        return self._workers().collect(wait=wait)

    def _workers(self) -> WorkerEnvironments:
        if self._away is None:
            raise RuntimeError(f"the environments of '{self.env_id}' are in this process, which steps them while it is asked")
        return self._away

    def play(self, episodes: Iterable[Play[T]]) -> list[T]:
        """Play episodes side by side, a few for each worker or one by one in this process; what they return, in order.

        Args:
            episodes: generators that yield a call and its arguments, and are sent its answer; a fault is raised in them.

        Raises:
            Exception: what the first of the episodes raises that fail; none is begun after that. Otherwise as `ask`.
        """
        coming = enumerate(episodes)
        playing: dict[int, tuple[int, Play[T]]] = {}
        returned, failed = dict[int, T](), dict[int, Exception]()

        def go_on(slot: int, answer: Any = None) -> Question | None:
            """The next question of a slot's episode, or the first of the one that follows it there."""
            while True:
                if slot not in playing:
                    if failed or (following := next(coming, None)) is None:
                        return None
                    playing[slot], answer = following, None
                index, episode = playing[slot]
                try:
                    said = episode.throw(answer) if isinstance(answer, EnvironmentFault) else episode.send(answer)
                    return Question(slot, *said)
                except StopIteration as end:
                    returned[index] = end.value
                except Exception as error:
                    failed[index] = error
                del playing[slot]
                self.release([slot])

        width = 1 if self._away is None else BESIDE * self._away.workers.count
        first = [question for slot in range(width) if (question := go_on(slot)) is not None]
        (self._away or self._here).converse(first, lambda place, answer: go_on(first[place].slot, answer))
        if failed:  # those before it are through, so it is the one that would have failed without workers
            raise failed[min(failed)]
        return [returned[index] for index in sorted(returned)]

    def release(self, slots: Collection[int]) -> None:
        """Say that nothing more is asked of slots until their next reset: what a worker would need to play on is forgotten."""
        if self._away is not None:
            self._away.release(slots)

    def reset(self, slot: int, seed: int) -> Answer:
        """Start task `seed` in a slot.

        Raises:
            EnvironmentFault: when the environment raises or breaks its contract (see `environment.reset`), or a worker that
                has it takes too long or dies of it.
        """
        answer: Answer = self._one(slot, "reset", seed)
        return answer

    def step(self, slot: int, action: str) -> Answer:
        """Take one action in a slot; raises as `reset` does."""
        answer: Answer = self._one(slot, "step", action)
        return answer

    def system_prompt(self, slot: int) -> str:
        """The system prompt of a slot's environment, or an empty string; raises as `reset` does."""
        prompt: str = self._one(slot, "system_prompt")
        return prompt

    def expert_action(self, slot: int) -> str | None:
        """The expert's action in a slot's present state, or None where there is no expert; raises as `reset` does."""
        action: str | None = self._one(slot, "expert_action")
        return action

    def run_metadata(self) -> dict[str, Any]:
        """What the environment would have a run record; raises as `reset` does."""
        about: dict[str, Any] = self._one(0, "run_metadata")
        return about

    def plan(self, slot: int) -> str | None:
        """The plan of a slot's task, or None; raises as `reset` does."""
        plan: str | None = self._one(slot, "plan")
        return plan

    def random_action(self, slot: int, rng: random.Random) -> str:
        """A random action in a slot's present state, of an environment that has `random_action`; raises as `reset` does."""
        action: str
        action, state = self._one(slot, "random_action", rng.getstate())
        rng.setstate(state)
        return action

    def expert_actions(self, seed: int, max_turns: int) -> list[str] | None:
        """`expert_episodes` for one task.

        Raises:
            EnvironmentFault: when the environment fails in it.
        """
        (found,) = self.expert_episodes([seed], max_turns)
        if isinstance(found, EnvironmentFault):
            raise found
        return found

    def expert_episodes(self, seeds: Sequence[int], max_turns: int) -> list[list[str] | EnvironmentFault | None]:
        """The actions with which the expert wins each task within `max_turns`; played once, side by side, and remembered.

        None where there is no expert, or where it does not win: its states are not those that lead to a solution, which
        is what replaying it is for. The fault where the environment failed.
        """
        new = [seed for seed in dict.fromkeys(seeds) if (seed, max_turns) not in self._expert]
        for seed, found in zip(new, self.play(_won_by_expert(seed, max_turns) for seed in new), strict=True):
            self._expert[seed, max_turns] = found
        return [self._expert[seed, max_turns] for seed in seeds]

    def close(self) -> None:
        """Close every environment; one that fails in it is warned of, since what it was made for is done."""
        away = self._away.close() if self._away is not None else []
        for sentence in away + self._here.close():
            warnings.warn(sentence, RuntimeWarning, stacklevel=2)

    def _one(self, slot: int, call: str, *arguments: Any) -> Any:
        (answer,) = self.ask([Question(slot, call, arguments)])
        if isinstance(answer, EnvironmentFault):
            raise answer
        return answer


def _won_by_expert(seed: int, max_turns: int) -> Play[list[str] | EnvironmentFault | None]:
    try:
        played = yield from episode(seed, max_turns)
    except EnvironmentFault as fault:
        return fault
    return played.actions if played.success else None
