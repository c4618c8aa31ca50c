"""One session of the `restricted` backend: a guard that no signal of the session reaches, and the runner that it forks.

The guard shuts itself into Landlock and forks the runner into a narrower domain. A signal reaches only the sender's domain and
those inside it, so the runner cannot touch its guard, and the guard ends the session with one `kill(-1)`. Where the kernel's
Landlock knows no signals, a user of the session's own, or seccomp and a walk over the process tree, do as much.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from agentdistill.tools.sandbox import confine, landlock, runner, seccomp, tally
from agentdistill.tools.sandbox.ended import ended

TICK = 0.05  # seconds between two looks at a session
IDLE_LOOKS = 10  # and so many looks between two at the files of one that does not seem to run
_SLACK = 1024  # processes of this user that may be started meanwhile, where sessions have no users of their own
_LIBRARIES = "/usr/lib /usr/lib64 /usr/local/lib /lib /lib64 /usr/bin /bin /usr/share/zoneinfo /etc/ld.so.cache /etc/localtime"
_DEVICES_READ = ("/dev/urandom", "/dev/random")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full")


@dataclass(frozen=True)
class Session:
    """What a guard is to guard.

    Attributes:
        folder: its only writable one, which exists and belongs to its user.
        become: changes this process's user to the session's own; None where sessions have none.
        limits: fields of `Limits`.
        control, stdout, stderr, life: descriptors.
        scope: whether Landlock keeps signals inside.
    """

    folder: str
    become: Callable[[], None] | None
    limits: dict[str, float]
    control: int
    stdout: int
    stderr: int
    life: int
    scope: bool


class Guard:
    """The first process of a session: none of the session's code runs in it."""

    def __init__(self, session: Session) -> None:
        self.session, self.folder, self.limits = session, session.folder, session.limits
        self.life = socket.socket(fileno=session.life)
        self.runner = 0
        self.busy, self.looks = (-1, -1), 0
        self.zygote = os.getppid()

    def run(self) -> None:
        """Start the session, see it end, and leave nothing of it; never returns."""
        os.setsid()
        processes = self._process_limit()
        if self.session.become is not None:
            self.session.become()
        confine.adopt_orphans()
        read = readable()
        landlock.restrict([*read, "/proc"], [self.folder], _DEVICES)
        wake, written = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(written, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        self.runner = os.fork()
        if self.runner == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._become_runner(read, processes)
        for each in (self.session.control, self.session.stdout, self.session.stderr):
            os.close(each)
        self.life.send(str(os.getpid()).encode())
        fate = self._watch(wake)
        self._kill_all()
        with contextlib.suppress(OSError):
            self.life.send(fate.encode())
        tally.empty(self.folder)
        os._exit(0)

    def _process_limit(self) -> int:
        """For RLIMIT_NPROC, which counts a user's processes and threads, this one too."""
        if self.session.become is not None:
            return int(self.limits["processes"]) + 1
        return tally.tasks_of_user(os.getuid()) + int(self.limits["processes"]) + _SLACK

    def _become_runner(self, read: list[str], processes: int) -> None:
        os.setsid()
        confine.die_with_parent()
        landlock.restrict(read, [self.folder], _DEVICES)
        nothing = os.open("/dev/null", os.O_RDONLY)
        for number, descriptor in enumerate((nothing, self.session.stdout, self.session.stderr, self.session.control)):
            os.dup2(descriptor, 500 + number)
        for number in range(4):
            os.dup2(500 + number, number)
        os.closerange(4, 1 << 20)
        confine.limit(
            memory_bytes=int(self.limits["memory_bytes"]),
            file_bytes=int(self.limits["file_bytes"]),
            open_files=int(self.limits["open_files"]),
            processes=processes,
        )
        os.umask(0o077)
        os.chdir(self.folder)
        confine.environment({**os.environ, "HOME": self.folder, "TMPDIR": self.folder, "PWD": self.folder})
        tempfile.tempdir = None  # the zygote's own
        # A change of user hid this process from its init, which has to count its open files.
        confine.show()
        signals_to = None if self.session.scope else os.getpid()
        seccomp.install(refused(), sockets=False, shared_host=True, signals_to=signals_to)
        runner.serve(3)

    def _watch(self, wake: int) -> str:
        """Wait for the session's end and say why it came."""
        poll = select.poll()
        poll.register(self.life, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll(TICK * 1000):
                if descriptor != wake:
                    return "it was closed"
                drain(wake)
                for pid, status in waited():
                    if pid == self.runner:
                        return ended(os.waitstatus_to_exitcode(status))
            # Not a signal to die with it: what the session started would live on.
            if os.getppid() != self.zygote:
                return ""
            reason = self._excess()
            if reason:
                return f"it was killed: {reason}"

    def _excess(self) -> str:
        """Which limit the session is over, or nothing."""
        tasks = cpu = pages = 0
        pids = tally.below(os.getpid())
        for pid in pids:
            fields = tally.fields(pid)
            if fields:
                tasks += int(fields[17])
                cpu += sum(map(int, fields[11:15]))
                pages += int(fields[21])
        if tasks > self.limits["processes"]:
            return f"more than {self.limits['processes']:.0f} processes and threads"
        busy, self.busy = (cpu, tasks) != self.busy, (cpu, tasks)
        self.looks += 1
        # CPU time is told in hundredths of a second, and in one of them a disk's worth can be written.
        if not busy and self.looks % IDLE_LOOKS:
            return ""
        # The host looks at memory while a call runs, and knows it for what it is; this is for the time between calls.
        memory = self.limits["session_memory_bytes"] * 1.25
        if pages * os.sysconf("SC_PAGE_SIZE") > memory and tally.proportional(pids) > memory:
            return f"more than {memory / (1 << 20):.0f} MiB of memory"
        return tally.disk_excess(self.folder, pids, self.limits)

    def _kill_all(self) -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if self.session.scope or self.session.become is not None:  # kill(-1) reaches nobody else
                with contextlib.suppress(OSError):
                    os.kill(-1, signal.SIGKILL)
            else:
                tally.kill_trees(tally.children(os.getpid(), 1))
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(0.001)


def refused() -> frozenset[str]:
    """System calls for the filter to refuse: before its third ABI, Landlock lets anybody truncate a file by its path."""
    return seccomp.KERNEL if landlock.abi() >= 3 else seccomp.KERNEL | {"truncate"}


def readable() -> list[str]:
    """What a session may read and execute: the interpreter, its packages, and the system's shared libraries."""
    own = [sys.prefix, sys.base_prefix, sys.exec_prefix, *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    return [*dict.fromkeys([*(path for path in own if path.strip("/")), *_LIBRARIES.split(), *_DEVICES_READ])]


def waited() -> list[tuple[int, int]]:
    """Children that ended, with their wait statuses."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(found)
    return ended


def drain(descriptor: int) -> None:
    """Read away what signals wrote into a pipe."""
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, 4096):
            pass
