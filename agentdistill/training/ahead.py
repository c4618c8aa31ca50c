"""One step off policy: the next iteration's episodes are played while this one's update runs.

The episodes of iteration i+1 are sampled by the weights that iteration i began with, so they lag one update behind: no more,
since an iteration's episodes are played before the next ones begin. The player has a copy of the weights, because those of
the student change meanwhile. Before a checkpoint or an evaluation nothing is played ahead, and the iteration that follows is
on policy: so a checkpoint holds all there is, and a resumed run plays what the whole one would have played.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentdistill.config import Experiment
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.model import CausalLM
from agentdistill.rollout import Clock, Rollout, Task
from agentdistill.training.state import copy_into
from agentdistill.trajectory import Trajectory

Plan = Callable[[int], list[Task]]


@dataclass(slots=True)
class Played:
    """An iteration's tasks and episodes, and the seconds that they took."""

    tasks: Sequence[Task]
    trajectories: list[Trajectory]
    clock: Clock


def goes_ahead(config: Experiment, iteration: int) -> bool:
    """Whether the episodes after this iteration's are played before it has ended."""
    train, every = config.train, config.eval.every
    evaluated = every and iteration % every == 0
    return iteration < train.iterations and iteration % train.checkpoint_every != 0 and not evaluated


class Ahead:
    """Plays episodes in a thread, an iteration ahead.

    Args:
        student: whose weights play.
        rollout: the episode loop of a copy of the student that is nobody else's.
        copy: that copy.
    """

    def __init__(self, student: CausalLM, rollout: Rollout, copy: CausalLM) -> None:
        self._student, self._rollout, self._copy = student, rollout, copy
        # Not the thread itself: after a `join` that Ctrl-C has cut short, Python 3.11 takes it for ended.
        self._ended: threading.Event | None = None
        self._iteration = 0
        self._result: Played | BaseException | None = None

    def episodes(self, iteration: int, plan: Plan, params: SamplingParams, version: int) -> Played:
        """An iteration's episodes: those that were played ahead, once they are there, or new ones by the student as it is.

        Args:
            plan: gives an iteration's tasks.
            version: of the student as it is, in updates.

        Raises:
            Exception: what playing them raised.
        """
        if self._ended is None or self._iteration != iteration:
            self.begin(iteration, plan, params, version)
        assert self._ended is not None
        self._ended.wait()
        self._ended, result, self._result = None, self._result, None
        if isinstance(result, BaseException):
            raise result
        assert result is not None
        return result

    def begin(self, iteration: int, plan: Plan, params: SamplingParams, version: int) -> None:
        """Start to play an iteration's episodes with the weights that the student has now."""
        tasks = plan(iteration)
        copy_into(self._copy, self._student.own(), "the player")
        rollout = self._rollout
        rollout.sampler.version = version
        rollout.clock = Clock()

        ended = threading.Event()

        def play() -> None:
            try:
                trajectories = rollout.run(tasks, params, f"iter-{iteration:06d}")
                self._result = Played(tasks, trajectories, rollout.clock)
            except BaseException as error:
                self._result = error
            finally:
                ended.set()

        self._iteration, self._ended = iteration, ended
        threading.Thread(target=play, name=f"rollout-{iteration}", daemon=True).start()

    def close(self) -> None:
        """Stop playing what nobody will ask for, at the end of the turn that is being played."""
        if self._ended is not None:
            self._rollout.stopped = True
            self._ended.wait()
            self._ended, self._result, self._rollout.stopped = None, None, False
