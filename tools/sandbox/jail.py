"""Sessions with namespaces of their own, forked from a zygote inside bubblewrap: milliseconds for a fresh interpreter.

host → bubblewrap → zygote (`zygote.py`) → a session: pid 1 (`init.py`) → runner (`runner.py`). The host holds a `life` socket
for each session; whatever becomes of the host, its end closes, pid 1 ends, and the kernel kills the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time
from dataclasses import replace

from agentdistill.tools.sandbox import bwrap, procfs
from agentdistill.tools.sandbox.base import Limits, SandboxError
from agentdistill.tools.sandbox.channel import piped
from agentdistill.tools.sandbox.ended import ended
from agentdistill.tools.sandbox.host import START_SECONDS, Fate, Usage
from agentdistill.tools.sandbox.hosted import HostedSandbox
from agentdistill.tools.sandbox.init import Order
from agentdistill.tools.sandbox.private import private

PRELOAD = ("numpy", "sympy")
ZYGOTE_SECONDS = 120.0  # to import PRELOAD, on a machine that is busy or has a cold cache
_FATE_SECONDS = 1.0
_CREDENTIALS = struct.Struct("3i")
_SOCKET_BYTES = 320 << 10  # what a socket of a pair can hold unread at most: 208 KiB (net.core.wmem_default) and one message


class JailSandbox(HostedSandbox):
    """See `Sandbox`. One zygote, started at once and again if it should die.

    Raises:
        SandboxError: where bubblewrap is missing, or may not make namespaces.
    """

    name = "jail"

    def __init__(self, limits: Limits | None = None, preload: tuple[str, ...] = PRELOAD) -> None:
        super().__init__(limits)
        self._preload, self._closed = preload, False
        self._bwrap = bwrap.find()
        self._zygote = _Zygote(self._bwrap, preload)
        try:
            self.open().close()  # where bubblewrap may make namespaces, its children may not always
        except SandboxError:
            self.close()
            raise

    def close(self) -> None:
        """See `Sandbox.close`."""
        super().close()
        with self._lock:
            self._closed = True
            self._zygote.close()

    def _start(self, limits: Limits) -> _Jailed:
        with self._lock:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            if not self._zygote.alive:
                self._zygote.close()
                self._zygote = _Zygote(self._bwrap, self._preload)
            zygote = self._zygote
        return _Jailed(zygote, limits)


class _Zygote:
    """The running bubblewrap and the socket that takes orders for sessions."""

    def __init__(self, path: str, preload: tuple[str, ...]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders, self._deaf = private(ours), False
        ours.settimeout(ZYGOTE_SECONDS)
        try:
            self._process = subprocess.Popen(
                bwrap.command(path, theirs.fileno(), preload),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise SandboxError(f"bubblewrap could not be started: {error}") from error
        finally:
            theirs.close()
        try:
            answer = ours.recv(64)
        except OSError:
            answer = b""
        if answer != b"ready":
            reason = self._complaint()
            self.close()
            raise SandboxError(f"the jail's first process did not start: {reason}")
        ours.settimeout(START_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether it still runs and listens."""
        return not self._deaf and self._process.poll() is None

    def order(self, order: Order, descriptors: list[int]) -> None:
        """Have a session forked.

        Raises:
            SandboxError: the zygote is gone, or does not listen.
        """
        try:
            socket.send_fds(self._orders, [json.dumps(order).encode()], descriptors)
        except OSError as error:
            self._deaf = True
            raise SandboxError(f"the jail's zygote takes no orders: {error}") from error

    def close(self) -> None:
        """End it, and with it every session that is left."""
        self._orders.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0.5)
        if self._process.poll() is None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _complaint(self) -> str:
        """What bubblewrap or the zygote said last."""
        if self._process.stderr is None:
            return ""
        os.set_blocking(self._process.stderr.fileno(), False)
        said = self._process.stderr.read() or b""
        lines = said.decode("utf-8", "backslashreplace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


class _Jailed:
    """An `Interpreter` in a session of the zygote."""

    def __init__(self, zygote: _Zygote, limits: Limits) -> None:
        self._zygote, self._memory = zygote, limits.session_memory_bytes
        life, life_there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        life.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._life = private(life)
        self._status: int | None = None
        self._pid, self._handle = 0, -1
        try:
            with piped() as (self.channel, theirs):
                zygote.order(_order(limits), [*theirs, life_there.fileno()])
        except SandboxError:
            self._life.close()
            raise
        finally:
            life_there.close()
        try:
            self._pid = self._born()
            self._handle = os.pidfd_open(self._pid)
        except (SandboxError, OSError) as error:
            self._life.close()
            self.channel.close()
            raise SandboxError(f"a session did not start: {error}") from error

    def usage(self) -> Usage | None:
        """See `Interpreter.usage`."""
        self._hear(0)
        if self._life.fileno() < 0 or self._status is not None:
            return None
        used = procfs.tree(self._pid, exact_above=self._memory)
        return used and replace(used, memory_bytes=used.memory_bytes + _SOCKET_BYTES * _sockets(self._pid))

    def fate(self) -> Fate:
        """See `Interpreter.fate`."""
        deadline = time.monotonic() + _FATE_SECONDS
        while self._status is None and (left := deadline - time.monotonic()) > 0:
            if not self._hear(left):
                break
        if self._status is None:
            return Fate("it closed its control channel")
        if self._status == _GONE:
            # Nothing inside can end pid 1, so it was the zygote's end, an operator, or the kernel for lack of memory.
            return Fate("its session was ended from outside", ours=True)
        return Fate(ended(self._status))

    def kill(self) -> None:
        """See `Interpreter.kill`."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            # Closing `life` is enough, but pid 1 may be long in getting the processor among busy processes.
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        self._life.close()

    def _born(self) -> int:
        """The host's number of the session's pid 1, from the credentials that the kernel adds to its first message."""
        self._life.settimeout(START_SECONDS)
        try:
            message, extra, _, _ = self._life.recvmsg(1024, socket.CMSG_SPACE(_CREDENTIALS.size))
        except OSError as error:
            raise SandboxError(str(error)) from error
        if message[:1] != b"P" or not extra:
            said = message[1:].decode("utf-8", "backslashreplace") or "it ended at once"
            raise SandboxError(said)
        return int(_CREDENTIALS.unpack(extra[0][2][: _CREDENTIALS.size])[0])

    def _hear(self, seconds: float) -> bool:
        """Whether there was news of the session's end within this time."""
        if self._life.fileno() < 0 or self._status is not None:
            return False
        poll = select.poll()
        poll.register(self._life, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        try:
            message = self._life.recv(64)
        except OSError:
            message = b""
        self._status = int(message[1:]) if message[:1] == b"X" else _GONE
        return True


def _sockets(pid: int) -> int:
    """How many sockets there are in a process's network namespace, those that no descriptor names any more too."""
    try:
        with open(f"/proc/{pid}/net/sockstat", "rb") as file:
            return int(file.readline().split()[2])  # "sockets: used 7"
    except (OSError, ValueError, IndexError):  # it ended meanwhile
        return 0


_GONE = 1 << 16  # pid 1 ended without telling how the runner did


def _order(limits: Limits) -> Order:
    return Order(
        memory_bytes=limits.memory_bytes,
        file_bytes=limits.file_bytes,
        open_files=limits.open_files,
        processes=limits.processes,
        disk_bytes=limits.disk_bytes,
        disk_inodes=limits.disk_inodes,
    )
