"""The process that sessions of the `restricted` backend are forked from: numpy and sympy imported, and nobody's code run.

A request on its socket is JSON (the limits) with four descriptors: control, stdout, stderr, life. On the life socket the
session's guard says its pid first and the session's fate last; the host ends a session by closing it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable

from agentdistill.tools.sandbox import confine, landlock, seccomp, tally
from agentdistill.tools.sandbox.restricted_init import Guard, Session, drain, refused, waited

_UIDS = ((1 << 29, 1 << 28), (40_000, 16_384))  # users of sessions: first and how many, the latter where few are mapped

_PREFIX = "agentdistill-sessions-"
_LOCK = "lock"  # a file in the sessions' folder
_STALE_SECONDS = 86_400.0  # of a folder without one


def main(descriptor: int) -> None:
    """Serve requests until the host hangs up."""
    requests = socket.socket(fileno=descriptor)
    requests.set_inheritable(False)
    for name in ("numpy", "sympy"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    confine.adopt_orphans()
    confine.harden()
    sweep(tempfile.gettempdir())
    root = tempfile.mkdtemp(prefix=_PREFIX)
    lock(root)
    os.chmod(root, 0o711)
    zygote = _Zygote(requests, root)
    seccomp.assembled(refused(), False, True, None)  # once, for all sessions
    requests.send(json.dumps(zygote.holds).encode())
    gc.collect()
    gc.freeze()
    try:
        zygote.serve()
    finally:
        zygote.end()


def lock(root: str) -> None:
    """Hold a lock in a folder until this process and its guards, which inherit it, have ended, however they end."""
    path = os.path.join(root, _LOCK)
    # Only locked does the file get its name: without a lock it would be taken for a dead sandbox's.
    descriptor = os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.rename(path + ".new", path)


def sweep(parent: str) -> None:
    """Remove this user's folders of sandboxes that were killed before they could do so themselves."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                with contextlib.suppress(OSError):
                    _remove_stale(entry.path)


def _remove_stale(root: str) -> None:
    """Raises OSError where the folder is in use (or is no folder)."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        info = os.fstat(folder)
        if info.st_uid != os.geteuid():
            return
        try:
            held = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            if time.time() - info.st_mtime > _STALE_SECONDS:
                tally.remove(root)
            return
        try:
            if stat.S_ISREG(os.fstat(held).st_mode):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                tally.remove(root)
        finally:
            os.close(held)
    finally:
        os.close(folder)


class _Zygote:
    """Forks inits, and clears up after them."""

    def __init__(self, requests: socket.socket, root: str) -> None:
        self.requests, self.root = requests, root
        self.inits: dict[int, tuple[str, int | None]] = {}  # pid: folder, user
        self.count = 0
        self.users = _Users.found(root)
        self.holds = {"landlock": landlock.abi(), "users": self.users is not None, "scope": _scope_holds(root), "folder": root}
        self.wake, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self.wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Fork a guard for each request, until the host hangs up."""
        poll = select.poll()
        poll.register(self.requests, select.POLLIN)
        poll.register(self.wake, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll()]
            if self.wake in ready:
                drain(self.wake)
                self.reap()
            if self.requests.fileno() in ready:
                data, descriptors, _, _ = socket.recv_fds(self.requests, 1 << 16, 4)
                if not data:
                    return
                self.start(json.loads(data), descriptors)
                for each in descriptors:
                    os.close(each)

    def start(self, limits: dict[str, float], descriptors: list[int]) -> None:
        self.count += 1
        folder = os.path.join(self.root, str(self.count))
        uid = self.users.number(self.count) if self.users else None
        os.mkdir(folder, 0o700)
        if uid is not None:
            os.chown(folder, uid, uid)
        users = self.users
        become = None if uid is None or users is None else functools.partial(users.become, uid)
        try:
            pid = os.fork()
        except OSError:  # the life socket closes without a word
            os.rmdir(folder)
            return
        if pid == 0:
            try:
                self.requests.close()
                control, out, err, life = descriptors
                Guard(Session(folder, become, limits, control, out, err, life, bool(self.holds["scope"]))).run()
            except BaseException as error:
                with contextlib.suppress(OSError):
                    os.write(descriptors[2], f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(70)
        self.inits[pid] = (folder, uid)

    def reap(self) -> None:
        """Remove the folders of sessions that ended, and whatever an init that was killed left behind."""
        for pid, status in waited():
            if pid in self.inits:
                folder, uid = self.inits.pop(pid)
                if status:  # it came to harm before it had killed all
                    self.kill_rest(uid)
                tally.remove(folder)

    def kill_rest(self, uid: int | None) -> None:
        """Kill processes without an init: those of the session's user, or, without users, children that are no inits."""
        if uid is not None:
            pid = os.fork()
            if pid == 0:
                try:
                    confine.become(uid)
                    os.kill(-1, signal.SIGKILL)
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
            return
        orphans = [pid for pid in tally.children(os.getpid(), 1) if pid not in self.inits]
        tally.kill_trees(orphans)

    def end(self) -> None:
        """Wait for the inits, whose hosts are gone, and leave nothing."""
        deadline = time.monotonic() + 3
        while self.inits and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.005)
        for pid in list(self.inits):
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            folder, uid = self.inits.pop(pid)
            self.kill_rest(uid)
            tally.remove(folder)
        shutil.rmtree(self.root, ignore_errors=True)


class _Users:
    """Users for sessions, each at one time one session's."""

    def __init__(self, first: int, many: int, keep_reading: bool) -> None:
        self.first, self.many, self.keep_reading = first, many, keep_reading
        self.start = int.from_bytes(os.urandom(4), "big")

    def number(self, count: int) -> int:
        return self.first + (self.start + count) % self.many

    def become(self, uid: int) -> None:
        confine.become(uid, keep_reading=self.keep_reading)

    @classmethod
    def found(cls, folder: str) -> _Users | None:
        """None where this process may not change its user, or where no other user could read the interpreter."""
        if os.geteuid() != 0:
            return None
        for first, many in _UIDS:
            for keep_reading in (False, True):
                users = cls(first, many, keep_reading)
                if _in_child(functools.partial(users.try_out, folder)):
                    return users
        return None

    def try_out(self, folder: str) -> None:
        trial = tempfile.mkdtemp(dir=folder)
        try:
            os.chown(trial, self.first, self.first)
        finally:
            os.rmdir(trial)
        self.become(self.first)
        for path in (os.path.dirname(os.__file__), *sys.path):
            if os.path.isabs(path) and not path.endswith(".zip"):
                os.listdir(path)


def _scope_holds(folder: str) -> bool:
    """Whether Landlock keeps signals inside: shown, because `kill(-1)` relies on it."""
    if landlock.abi() < 6:
        return False
    zygote = os.getpid()

    def attempt() -> None:
        landlock.restrict([], [folder])
        try:
            os.kill(zygote, 0)
        except PermissionError:
            return
        raise PermissionError

    return _in_child(attempt)


def _in_child(act: Callable[[], None]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0
