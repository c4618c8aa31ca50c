"""A jail's session from the inside: namespaces of its own, a first process that does nothing but end, and the runner.

`fork` makes a process that is the first in namespaces of its own (pid 1, ours) and `begin` is what it does: mount private
folders, give up every capability, start the runner, and wait for the end of the runner or of the `life` socket. When pid 1
ends, the kernel kills whatever else is in its namespace. The standard library, and files of ours that need no more.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import struct
import sys
from typing import TypedDict

from agentdistill.tools.sandbox import confine, runner, seccomp

HOME = "/sandbox"
_SCRATCH = "/mnt"
_NEW_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000  # mnt uts ipc user pid net
_NOSUID, _NODEV, _NOEXEC, _RDONLY, _BIND, _REC, _SLAVE = 2, 4, 8, 1, 1 << 12, 1 << 14, 1 << 19
_INSIDE = 65534

libc = ctypes.CDLL(None, use_errno=True)


class Order(TypedDict):
    """What the host asks of a session; sizes in bytes."""

    memory_bytes: int
    file_bytes: int
    open_files: int
    processes: int
    disk_bytes: int
    disk_inodes: int


def fork() -> int:
    """`os.fork`, into new namespaces: 0 in the child, which can only go on to `begin`.

    Without the second fork of `unshare`, a quarter of a session's start. The process must have one thread. Python's and libc's
    own cares for a child are left out; they are taken when the child forks the runner.

    Raises:
        OSError: the kernel refused.
    """
    number = seccomp.NUMBERS["clone"][os.uname().machine != "x86_64"]
    # Holding the interpreter lock, which the child could not take back.
    pid = int(ctypes.PyDLL(None, use_errno=True).syscall(number, _NEW_NAMESPACES | signal.SIGCHLD, 0, 0, 0, 0))
    _check(pid, "clone")
    return pid


def begin(user: tuple[int, int], order: Order, control: int, stdout: int, stderr: int, life: int) -> None:
    """Be a session's pid 1; never returns. What fails is written to `life` as `E` and a sentence.

    Args:
        user: uid and gid of the process that forked, which this one is outside of its namespaces.
        order: the session's limits.
        control, stdout, stderr, life: descriptors, see `zygote.main`.
    """
    try:
        gc.disable()
        _settle(*user)
        _first(order, control, stdout, stderr, life)
    except BaseException as error:
        tell(life, b"E" + f"{type(error).__name__}: {error}".encode()[:1000])
    finally:
        os._exit(1)


def _settle(uid: int, gid: int) -> None:
    """Say who is who in the new user namespace."""
    # A process that may not be dumped does not own its files in /proc.
    _check(libc.prctl(4, 1, 0, 0, 0), "prctl")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{_INSIDE} {uid} 1"), ("gid_map", f"{_INSIDE} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # when the machine runs out of memory, model-written code is the first to go
    _check(libc.prctl(4, 0, 0, 0, 0), "prctl")


def _first(order: Order, control: int, stdout: int, stderr: int, life: int) -> None:
    _mount(order)
    os.chdir(HOME)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which pid 1 ignores, as it does every signal without a handler
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    _drop_capabilities()
    confine.harden()
    pid = os.fork()
    if pid == 0:
        _become_runner(order, control, stdout, stderr)
    for descriptor in (control, stdout, stderr):
        os.close(descriptor)
    seccomp.install()
    tell(life, b"P")  # the kernel adds this process's pid, as the host knows it
    _wait(pid, life, wake_read)


def _become_runner(order: Order, control: int, stdout: int, stderr: int) -> None:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        confine.close_descriptors({0, 1, 2, control})
        os.setsid()
        # One more for pid 1, which is of the same user and counts.
        confine.limit(
            memory_bytes=order["memory_bytes"],
            file_bytes=order["file_bytes"],
            open_files=order["open_files"],
            processes=order["processes"] + 1,
        )
        libc.prctl(4, 1, 0, 0, 0)  # its own files in /proc are its own
        _reseed()
        os.environ["PWD"] = HOME  # bubblewrap leaves the host's
        # What TCP holds in its buffers, even for the loopback device, is no process's memory.
        seccomp.install(sockets=False)
        gc.enable()
        runner.serve(control)
    except BaseException as error:
        tell(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(71)


def _reseed() -> None:
    """Or every session would draw the zygote's numbers; `random` sees to itself after a fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _mount(order: Order) -> None:
    """A tmpfs for everything that can be written, and a /proc that shows this session only."""
    _mount_one(None, "/", None, _REC | _SLAVE)
    size = f"size={order['disk_bytes']},nr_inodes={order['disk_inodes']},mode=0755"
    _mount_one("tmpfs", _SCRATCH, "tmpfs", _NOSUID | _NODEV, size)
    # One file system, so that its caps hold for all three together.
    for name, target in (("home", HOME), ("tmp", "/tmp"), ("shm", "/dev/shm")):
        os.mkdir(f"{_SCRATCH}/{name}")
        os.chmod(f"{_SCRATCH}/{name}", 0o1777)
        _mount_one(f"{_SCRATCH}/{name}", target, None, _BIND)
    _check(libc.umount2(_SCRATCH.encode(), 2), "umount")  # MNT_DETACH: the three stay
    try:
        mount_proc()
    except OSError:  # in a container that hides parts of /proc: an empty one, since the one there shows other sessions
        _mount_one("tmpfs", "/proc", "tmpfs", _NOSUID | _NODEV | _NOEXEC | _RDONLY, "size=4k,nr_inodes=1")


def mount_proc() -> None:
    """A /proc of this pid namespace. A session can mount its own only where a whole one is seen."""
    _mount_one("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)


def _drop_capabilities() -> None:
    header = struct.pack("<Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _check(libc.capset(header, bytes(24)), "capset")


def _wait(runner_pid: int, life: int, wake: int) -> None:
    """Reap whatever ends here, until the runner does or the host lets go of `life`; then end, and everything with it."""
    poll = select.poll()
    poll.register(life, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if life in ready:
            os._exit(0)
        try:
            os.read(wake, 4096)
        except BlockingIOError:
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(0)
            if pid == 0:
                break
            if pid == runner_pid:
                tell(life, b"X%d" % os.waitstatus_to_exitcode(status))
                os._exit(0)


def tell(life: int, message: bytes) -> None:
    """Write a message to the host, which may be gone."""
    try:
        os.write(life, message)
    except OSError:  # nobody listens any more
        return


def _mount_one(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, target, kind, data)]
    _check(libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
