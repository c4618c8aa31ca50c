"""The backend without namespaces: Landlock, seccomp and rlimits, where bubblewrap cannot run, such as in a default container.

Weaker than `jail`: sessions share the machine's process ids (they can neither signal, trace nor read other processes, but they
can tell whether a number is in use) and its disk, which is watched rather than capped: a session that fills it is killed, some
tens of MiB late, where other backends refuse the write and the session goes on. Where this process may change its user,
every session has a user of its own. The processes: `restricted_zygote.py`, and for each session `restricted_init.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from agentdistill.errors import UserError
from agentdistill.tools.sandbox import landlock, procfs
from agentdistill.tools.sandbox.base import Limits, SandboxError
from agentdistill.tools.sandbox.channel import Channel, PipeChannel, piped
from agentdistill.tools.sandbox.host import Fate, Usage
from agentdistill.tools.sandbox.hosted import HostedSandbox
from agentdistill.tools.sandbox.private import private

START_SECONDS = 60.0
_KILL_SECONDS = 10.0
_CLEAR_SECONDS = 2.0
# Packages above the modules are not imported: they would bring most of the project into every session.
_BOOTSTRAP = """
import sys, types
for name, path in (("agentdistill", []), ("agentdistill.tools", []), ("agentdistill.tools.sandbox", [sys.argv[1]])):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path
from agentdistill.tools.sandbox import restricted_zygote
restricted_zygote.main(int(sys.argv[2]))
"""
_KEPT = ("LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR")  # without them an interpreter that was moved does not start


class RestrictedSandbox(HostedSandbox):
    """Sessions in processes that Landlock, seccomp and rlimits confine."""

    name = "restricted"

    def __init__(self, limits: Limits | None = None) -> None:
        """Start the zygote.

        Raises:
            UserError: when the kernel has no Landlock.
            SandboxError: when the zygote does not start.
        """
        if not landlock.abi():
            raise UserError(
                "the restricted sandbox needs Landlock, which this kernel lacks or this container forbids; use Linux 5.13 or "
                "newer, booted with landlock among its lsm=, and a container whose seccomp profile allows it"
            )
        super().__init__(limits)
        self._zygote: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        self.holds: dict[str, object] = {}
        self._begin()

    def close(self) -> None:
        """See `Sandbox.close`."""
        super().close()
        with self._lock:
            self._end()

    def _begin(self) -> None:
        """Start a zygote; the lock is held, or nobody else has this object."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = "1"
        environment |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        with theirs:
            self._zygote = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOTSTRAP, str(Path(__file__).parent), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env=environment,
                start_new_session=True,
            )
        ours.settimeout(START_SECONDS)
        try:
            said = ours.recv(4096)
        except TimeoutError:
            said = b""
        if not said:
            self._zygote.kill()
            assert self._zygote.stderr is not None
            heard = self._zygote.stderr.read().decode(errors="replace").strip()
            self._zygote.wait()
            self._zygote.stderr.close()
            ours.close()
            raise SandboxError(f"the restricted sandbox did not start: {heard[-500:] or 'its zygote said nothing'}")
        self.holds = json.loads(said)
        self._requests = private(ours)

    def _end(self) -> None:
        zygote, requests = self._zygote, self._requests
        self._zygote = self._requests = None
        if requests is not None:
            requests.close()
        if zygote is not None:
            root = str(self.holds.get("folder", ""))
            try:
                zygote.wait(timeout=_KILL_SECONDS)
            except subprocess.TimeoutExpired:
                zygote.kill()
                zygote.wait()
            if zygote.stderr is not None:
                zygote.stderr.close()
            deadline = time.monotonic() + _CLEAR_SECONDS
            while root and os.path.lexists(root) and time.monotonic() < deadline:  # the zygote was killed, and could not
                shutil.rmtree(root, ignore_errors=True)
                time.sleep(0.02)  # its sessions' guards see that too, and end them

    def _start(self, limits: Limits) -> _Process:
        with self._lock:
            if self._zygote is None or self._requests is None:
                raise SandboxError("the sandbox is closed")
            if self._zygote.poll() is not None:
                self._end()
                self._begin()
            requests = self._requests
            assert requests is not None
            life, life_there = socket.socketpair(type=socket.SOCK_SEQPACKET)
            try:
                with piped() as (channel, theirs):
                    socket.send_fds(requests, [json.dumps(asdict(limits)).encode()], [*theirs, life_there.fileno()])
            except OSError as error:
                life.close()
                raise SandboxError(f"the zygote does not take requests: {error}") from error
            finally:
                life_there.close()
        return _Process(channel, life, limits)


class _Process:
    """An `Interpreter`: a runner, known by its init's life socket."""

    def __init__(self, channel: PipeChannel, life: socket.socket, limits: Limits) -> None:
        self.channel: Channel = channel
        self._life, self._limits = private(life), limits
        life.settimeout(START_SECONDS)
        try:
            said = life.recv(4096)
        except OSError:
            said = b""
        if not said:
            life.close()
            heard = b"".join(data for stream, data in channel.receive(0) if stream == "stderr").decode(errors="replace")
            channel.close()
            raise SandboxError(f"no session could be started: {heard.strip()[-500:] or 'the zygote could not fork'}")
        self._init = int(said)
        self._lock = threading.Lock()
        self._news = select.poll()
        self._news.register(life, select.POLLIN)
        self._fate: str | None = None

    def usage(self) -> Usage | None:
        """See `Interpreter.usage`."""
        with self._lock:
            if self._fate is not None or self._life.fileno() < 0 or self._news.poll(0):
                return None  # it has said its last, and its number may be another process's
        return procfs.tree(self._init, self._limits.session_memory_bytes)

    def fate(self) -> Fate:
        """See `Interpreter.fate`."""
        self._listen(1.0)
        if self._fate is None:
            return Fate("it closed its control channel")
        return Fate(self._fate or "its guard was killed", ours=not self._fate, memory=self._fate.endswith("of memory"))

    def kill(self) -> None:
        """See `Interpreter.kill`: the guard kills all and says so before it goes."""
        with contextlib.suppress(OSError):  # closed before, or the guard is gone
            self._life.shutdown(socket.SHUT_WR)
        self._listen(_KILL_SECONDS)
        with self._lock:
            self._life.close()

    def _listen(self, seconds: float) -> None:
        """Wait for the fate; another thread may do so as well, or close."""
        with self._lock:
            if self._fate is None and self._life.fileno() >= 0:
                self._life.settimeout(seconds)
                with contextlib.suppress(TimeoutError):
                    try:
                        self._fate = self._life.recv(4096).decode(errors="replace")
                    except OSError:
                        self._fate = ""
