"""This process's end of one worker process of an `EnvPool`."""

from __future__ import annotations

import os
import pickle
import select
import socket
import subprocess
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from agentdistill import child
from agentdistill.pool_child import CODE, LENGTH
from agentdistill.pool_local import Question
from agentdistill.pool_memory import used

GRACE = 10.0  # seconds for a worker to close its environments
SEND = 30.0  # seconds for an idle worker to take a question
_PIECE = 1 << 20
_DYING = 1.0
_STDERR = 2


class WorkerGone(Exception):
    """The process has ended, or does not take what is sent."""


class Worker(Protocol):
    """What a pool knows of a worker, wherever it is: asked without waiting, heard when its `link` is readable.

    Attributes:
        ready: whether it has imported what the environment needs; the pool sets it.
        episodes: resets it was asked for.
        link: readable when there is something to receive.
    """

    ready: bool
    episodes: int
    link: socket.socket

    @property
    def memory(self) -> int:
        """See `WorkerProcess`, as for all that follows."""
        ...

    def ask(self, questions: Sequence[Question]) -> None: ...  # noqa: D102
    def receive(self) -> list[tuple[str, Any]]: ...  # noqa: D102
    def ended(self) -> bool: ...  # noqa: D102
    def give_up(self) -> None: ...  # noqa: D102
    def kill(self) -> str: ...  # noqa: D102
    def hang_up(self) -> None: ...  # noqa: D102
    def close(self) -> list[str]: ...  # noqa: D102


class WorkerProcess:
    """A process that holds environments. It is killed with this object at the latest.

    Args:
        packed: from `pool_handover.hand_over`.

    Attributes:
        ready: whether it has imported what the environment needs.
        episodes: resets it was asked for.
        link: readable when there is something to receive.

    Raises:
        OSError: when it cannot be started.
    """

    def __init__(self, packed: bytes) -> None:
        self.ready, self.episodes = False, 0
        self.link, theirs = socket.socketpair()
        try:
            # What environments print is for people, and no part of what this process prints.
            self._process: subprocess.Popen[bytes] = child.start(
                CODE, link=theirs, output=_STDERR, variables={"PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0")}
            )
        except BaseException:
            self.link.close()
            raise
        finally:
            theirs.close()
        self._received, self._over = bytearray(), False
        self._end: Callable[[], object] = weakref.finalize(self, child.kill, self._process, self.link, os.getpid())
        self._send(packed)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def memory(self) -> int:
        """Bytes that it uses with its descendants, a Java process or a sandbox, say; 0 where the system does not tell."""
        return used(self.pid)

    def ask(self, questions: Sequence[Question]) -> None:
        """Send questions, when all earlier ones are answered; their answers are the next messages.

        Raises:
            WorkerGone: when they cannot be sent.
        """
        self.episodes += sum(question.call == "reset" for question in questions)
        self._send(pickle.dumps(questions))

    def receive(self) -> list[tuple[str, Any]]:
        """The messages that are here whole, without waiting.

        Raises:
            WorkerGone: when there is none and never will be.
        """
        while True:
            try:
                piece = self.link.recv(_PIECE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            if not piece:
                self._over = True
                break
            self._received += piece
        messages = list[tuple[str, Any]]()
        while len(self._received) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack(self._received[: LENGTH.size])[0]
            if len(self._received) < end:
                break
            messages.append(pickle.loads(self._received[LENGTH.size : end]))
            del self._received[:end]
        if self._over and not messages:
            self._until_ended(_DYING)  # its link ends a moment before it does
            raise WorkerGone
        return messages

    def ended(self) -> bool:
        """Whether the process has ended. It is not reaped, so that its number stays its own until `kill`."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> str:
        """End the process and what it started; how it ended, if it had done so by itself."""
        had_ended = self.ended()
        self._end()
        code = self._process.returncode
        if not had_ended:
            return "it was killed"
        return f"it ended by signal {-code}" if code < 0 else f"it exited with code {code}"

    def hang_up(self) -> None:
        """Tell it to close its environments and end, without waiting for it."""
        try:
            self.link.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> list[str]:
        """Wait for the end after `hang_up`, for `GRACE` seconds at most; what environments said that failed in closing."""
        said: list[str] = []
        deadline = time.monotonic() + GRACE
        try:
            while (left := deadline - time.monotonic()) > 0:
                readable([self], left)
                said += [sentence for kind, told in self.receive() if kind == "closed" for sentence in told]
        except WorkerGone:
            self._until_ended(deadline - time.monotonic())
        self.kill()
        return said

    def give_up(self) -> None:
        """Expect nothing more than what is here: the process has ended, whoever holds its end of the link."""
        self._over = True

    def _until_ended(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self.ended() and time.monotonic() < deadline:
            time.sleep(0.002)

    def _send(self, data: bytes) -> None:
        self.link.settimeout(SEND)
        try:
            self.link.sendall(LENGTH.pack(len(data)) + data)
        except OSError as error:  # a timeout is one
            raise WorkerGone from error
        finally:
            self.link.settimeout(None)


def readable(processes: Sequence[Worker], seconds: float) -> None:
    """Wait until one of the processes has something to receive, or has ended; a second at most, or `seconds`."""
    poll = select.poll()
    for process in processes:
        poll.register(process.link, select.POLLIN)
    if not poll.poll(1000 * min(max(seconds, 0.0), 1.0)):
        for process in processes:  # a child of its own may hold the link of one that has ended
            if process.ended():
                process.give_up()
