"""A process of its own for one function whose running time or memory cannot be trusted, killed when it takes too long.

    worker = Worker("sympy:factorint", timeout=2.0)
    worker.call(10**40 + 1)

The function is named, not sent. Arguments and results cross as JSON and never as pickles, so that nothing made from a
model's text is rebuilt as an object. This is a guard against long work, not a sandbox: the function is our own code.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from agentdistill import child
from agentdistill.rendering import said

MEMORY = 2 << 30
START_TIMEOUT = 60.0
MAX_MESSAGE = 16 << 20
_CHILD = "from agentdistill.worker import serve; serve()"


class WorkerError(Exception):
    """A call that gave no result."""


class WorkerTimeout(WorkerError):
    """The function took longer than the limit; its process was killed."""


class WorkerDied(WorkerError):
    """The process ended during the call."""


class WorkerNotStarted(WorkerDied):
    """The process could not start, or could not import the function: whatever was asked of it is not to blame."""


class WorkerRaised(WorkerError):
    """The function raised.

    Attributes:
        kind: name of the exception's class.
        said: its message.
    """

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(f"{kind}: {said}" if said else kind)
        self.kind, self.said = kind, said


class Worker:
    """A killable process that serves one function, a call at a time; threads wait for each other.

    It is started at the first call, again after it was killed, and ends with this object, this process or `close`.

    Args:
        function: `module:attribute`, imported in the process.
        timeout: seconds of wall time a call may take; starting the process does not count.
        memory: bytes of address space (`RLIMIT_AS`).
        cpu: seconds of CPU time a call may take (`RLIMIT_CPU`, whole seconds); `timeout` + 1 where it is None. It also
            ends a process whose parent could not.

    Attributes:
        starts: how often the process was started.
    """

    def __init__(self, function: str, timeout: float, *, memory: int = MEMORY, cpu: float | None = None) -> None:
        self.function, self.timeout, self.memory = function, timeout, memory
        self.cpu = math.ceil(timeout + 1 if cpu is None else cpu)
        self.starts = 0
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._end: Callable[[], object] | None = None
        self._owner = 0

    def call(self, *args: Any) -> Any:
        """The function's result for JSON arguments, itself JSON.

        Raises:
            WorkerTimeout: when it took longer than `timeout`.
            WorkerDied: when the process ended (out of memory, CPU limit, crash).
            WorkerNotStarted: a `WorkerDied`, when it could not start or the function cannot be imported.
            WorkerRaised: when the function raised, or returned what is not JSON.
        """
        request = json.dumps(args).encode() + b"\n"
        with self._lock:
            if self._socket is None or self._owner != os.getpid():  # a forked child does not share its parent's worker
                self._start()
            assert self._socket is not None
            try:
                answer = _exchange(self._socket, request, self.timeout)
            except TimeoutError:
                self._stop()
                raise WorkerTimeout(f"{self.function} took longer than {self.timeout:g} s") from None
            except OSError as error:
                self._stop()
                raise WorkerDied(f"the process of {self.function} ended during the call ({error})") from None
            except BaseException:  # Ctrl-C: an answer may still come, and would be taken for the next call's
                self._stop()
                raise
        if "raised" in answer:
            raise WorkerRaised(*answer["raised"])
        return answer["result"]

    def close(self) -> None:
        """End the process; the next call starts another."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._socket = self._end = None

    def _start(self) -> None:
        self._stop()
        ours, theirs = socket.socketpair()
        try:
            process = child.start(_CHILD, self.function, str(self.memory), str(self.cpu), link=theirs)
        except (OSError, RuntimeError) as error:
            ours.close()
            raise WorkerNotStarted(f"the process of {self.function} cannot be started: {error}") from error
        finally:
            theirs.close()
        self._socket, self._owner = ours, os.getpid()
        self._end = weakref.finalize(self, child.kill, process, ours, os.getpid())
        self.starts += 1
        try:
            problem = _exchange(ours, b"", START_TIMEOUT).get("failed")
        except OSError as error:
            problem = str(error) or type(error).__name__
        if problem:
            self._stop()
            raise WorkerNotStarted(f"the process of {self.function} did not start: {problem}")


def serve() -> None:
    """What the process runs: answer requests until its parent is gone."""
    link_number, parent, function, *numbers = sys.argv[1:]
    fd, (memory, cpu) = int(link_number), map(int, numbers)
    if not child.end_with(int(parent)):
        return
    with socket.socket(fileno=fd) as link, link.makefile("rwb") as stream:
        try:
            module, _, attribute = function.partition(":")
            run = getattr(importlib.import_module(module), attribute)
        except Exception as error:
            _send(stream, {"failed": f"{type(error).__name__}: {error}"})
            return
        # After imports, which use memory that no input decides.
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        _send(stream, {})
        for line in stream:
            spent = resource.getrusage(resource.RUSAGE_SELF)
            limit = math.ceil(spent.ru_utime + spent.ru_stime) + cpu
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            _send(stream, _answer(run, line))


def _answer(run: Callable[..., Any], line: bytes) -> dict[str, Any]:
    try:
        answer = {"result": run(*json.loads(line))}
        json.dumps(answer)
    except (Exception, SystemExit) as error:
        answer = {"raised": [type(error).__name__, said(error)[:1_000]]}
    return answer


def _send(stream: Any, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer).encode() + b"\n")
    stream.flush()


def _exchange(link: socket.socket, request: bytes, timeout: float) -> dict[str, Any]:
    """Send a line and read one, both within `timeout` seconds.

    Raises:
        OSError: when the other side is gone or sends more than `MAX_MESSAGE` bytes; `TimeoutError` is one.
    """
    deadline = time.monotonic() + timeout
    link.settimeout(timeout)
    link.sendall(request)
    received = bytearray()
    while not received.endswith(b"\n"):  # an answer is one line, and nothing follows it unasked
        if (left := deadline - time.monotonic()) <= 0:
            raise TimeoutError
        link.settimeout(left)
        piece = link.recv(1 << 16)
        if not piece or len(received) > MAX_MESSAGE:
            raise ConnectionError("it closed the connection" if not piece else "its answer is too long")
        received += piece
    answer: dict[str, Any] = json.loads(received)
    return answer
