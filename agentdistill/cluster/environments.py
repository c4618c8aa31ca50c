"""A pool's workers as actors: each holds a worker process on its node, and says what that said.

To the pool a worker is something with a link that can be read when there is something to receive. Here the link is a bell: an
answer of the actor's lies in a list by then. An actor that is lost, alone or with its node, is a worker that is gone, and the
pool plays its episodes again in the next one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ray.exceptions import RayError, RayTaskError

from agentdistill.cluster.attempts import Attempts
from agentdistill.cluster.connect import ray
from agentdistill.cluster.environment_host import EnvironmentHost, Heard
from agentdistill.cluster.placement import Place, Reservation
from agentdistill.errors import UserError
from agentdistill.faults import described
from agentdistill.pool_local import Question
from agentdistill.pool_process import GRACE, WorkerGone, readable

_LINE = 1 << 12


class RemoteWorker:
    """A `pool_process.Worker` at a place of the cluster.

    Args:
        packed: see `EnvironmentHost`.
        place: its own, until it is killed.
        wait: seconds that its actor may take to be there.
        left: called with the place, once it is free again, and with where and how the actor was lost, if it was.
        begun: called with the place and the node, once it is there.
    """

    def __init__(
        self, packed: bytes, place: Place, reservation: Reservation, wait: float, *,
        left: Callable[[Place, str], None], begun: Callable[[Place, str], None],
    ) -> None:  # fmt: skip
        self.ready, self.episodes, self.memory = False, 0, 0
        self.link, self._bell = socket.socketpair()
        for end in (self.link, self._bell):
            end.setblocking(False)
        self._packed, self._place, self._reservation = packed, place, reservation
        self._left, self._begun = left, begun
        self._attempts = Attempts(reservation, wait)
        self._inbox: deque[Future[Heard]] = deque()
        self._node, self._how, self._lost, self._over = "", "", False, False
        self._actor: Any = None
        self._start()

    def ask(self, questions: Sequence[Question]) -> None:
        """See `WorkerProcess.ask`."""
        if self._over:
            raise WorkerGone
        self.episodes += sum(question.call == "reset" for question in questions)
        self._actor.ask.remote(list(questions))

    def receive(self) -> list[tuple[str, Any]]:
        """See `WorkerProcess.receive`.

        Raises:
            UserError: when the actor is not there after all of its time.
        """
        with contextlib.suppress(BlockingIOError, OSError):
            while self.link.recv(_LINE):
                pass
        messages: list[tuple[str, Any]] = []
        while self._inbox:
            self._take(self._inbox.popleft(), messages)
        if self._over and not messages:
            raise WorkerGone
        if not self._node and self._attempts.over:
            raise self._attempts.missing(self._place.name)
        return messages

    def ended(self) -> bool:
        """Whether nothing more will come than what is here."""
        return self._over

    def give_up(self) -> None:
        """Nothing: that it has ended was heard."""

    def kill(self) -> str:
        """See `WorkerProcess.kill`."""
        if self._actor is not None:
            if ray.is_initialized():
                ray.kill(self._actor, no_restart=True)
            self._actor = None
            for end in (self.link, self._bell):
                end.close()
            self._left(self._place, self._node if self._lost else "")
        return self._how or "it was killed"

    def hang_up(self) -> None:
        """See `WorkerProcess.hang_up`."""
        if not self._over:
            self._actor.hang_up.remote()

    def close(self) -> list[str]:
        """See `WorkerProcess.close`."""
        said: list[str] = []
        deadline = time.monotonic() + GRACE
        with contextlib.suppress(WorkerGone):
            while (left := deadline - time.monotonic()) > 0:
                readable([self], left)
                said += [sentence for kind, told in self.receive() if kind == "closed" for sentence in told]
        self.kill()
        return said

    def _start(self) -> None:
        kind, options = ray.remote(EnvironmentHost), self._reservation.options(self._place)
        self._actor = kind.options(**options).remote(self._packed, os.environ.get("PYTHONHASHSEED", "0"))
        self._listen()

    def _listen(self) -> None:
        """Have the bell rung when the process has said something."""
        self._actor.heard.remote().future().add_done_callback(self._ring)

    def _ring(self, future: Future[Heard]) -> None:
        """Called in a thread of Ray's."""
        self._inbox.append(future)
        with contextlib.suppress(OSError):  # nobody hears any more, or it is ringing
            self._bell.send(b"!")

    def _take(self, future: Future[Heard], messages: list[tuple[str, Any]]) -> None:
        try:
            heard = future.result()
        except RayTaskError as error:
            raise UserError(f"{self._place.name} failed: {described(error.cause or error)}") from error
        except RayError as error:
            if self._node:
                self._over, self._lost, self._how = True, True, "its actor was lost"
            else:
                self._attempts.failed(self._place.name, error)
                self._start()
            return
        if not self._node:
            self._node = heard.node
            self._begun(self._place, heard.node)
        self.memory = heard.memory
        messages += heard.messages
        if heard.ended:
            self._over, self._how = True, heard.ended
        else:
            self._listen()


class Places:
    """The places of environments: handed out to workers, and said in the log where one was lost.

    Args:
        free: all of them.
        say: takes lines.
    """

    def __init__(self, free: Sequence[Place], reservation: Reservation, wait: float, say: Callable[[str], None]) -> None:
        self._free, self._reservation, self._wait, self._say = deque(free), reservation, wait, say
        self._lost: dict[Place, str] = {}

    def worker(self, packed: bytes) -> RemoteWorker:
        """A worker at the next place that is free."""
        place = self._free.popleft()
        return RemoteWorker(packed, place, self._reservation, self._wait, left=self._take_back, begun=self._told)

    def _take_back(self, place: Place, lost: str) -> None:
        self._free.append(place)
        if lost:
            self._lost[place] = lost

    def _told(self, place: Place, node: str) -> None:
        if (old := self._lost.pop(place, "")) == "":
            return
        gone = old not in {each.id for each in self._reservation.nodes()}
        why = "its node is gone" if gone else "its process ended"
        where = "there" if old == node else f"on {self._reservation.called(node)}"
        self._say(
            f"{place.name} on {self._reservation.called(old)} was lost: {why}; replaced {where}, and its episodes are played "
            "again"
        )
