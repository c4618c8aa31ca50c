"""An actor that holds a worker process of an `EnvPool` on its node. It needs no torch, and imports none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentdistill.cluster.connect import ray
from agentdistill.pool_local import Question
from agentdistill.pool_process import WorkerGone, WorkerProcess, readable


@dataclass(frozen=True, slots=True)
class Heard:
    """What a worker process said since it was last asked, and what is known of it.

    Attributes:
        ended: how it ended; empty while it runs.
    """

    messages: list[tuple[str, Any]]
    node: str
    memory: int
    ended: str = ""


class EnvironmentHost:
    """What the actor is: one worker process, which ends with it.

    Args:
        packed: from `pool_handover.hand_over`.
        hash_seed: of Python's, as the driver has it.
    """

    def __init__(self, packed: bytes, hash_seed: str) -> None:
        os.environ["PYTHONHASHSEED"] = hash_seed
        self._process = WorkerProcess(packed)
        self._node: str = ray.get_runtime_context().get_node_id()
        self._announced = False
        # Sending gives the link a timeout for a moment, for which a reader of another thread would wait as well.
        self._link = threading.Lock()

    async def ask(self, questions: Sequence[Question]) -> None:
        """See `WorkerProcess.ask`; that it is gone is heard, and its link may be closed by then."""
        with contextlib.suppress(WorkerGone, OSError), self._link:
            self._process.ask(questions)

    async def hang_up(self) -> None:
        """See `WorkerProcess.hang_up`."""
        self._process.hang_up()

    async def heard(self) -> Heard:
        """Wait until the process says something, or ends; at first only say that this actor is there."""
        if not self._announced:
            self._announced = True
            return Heard([], self._node, 0)
        return await asyncio.get_running_loop().run_in_executor(None, self._wait)

    def _wait(self) -> Heard:
        process = self._process
        while True:
            readable([process], 1.0)
            try:
                with self._link:
                    messages = process.receive()
                if messages:
                    return Heard(messages, self._node, process.memory)
            except WorkerGone:
                return Heard([], self._node, 0, process.kill())
