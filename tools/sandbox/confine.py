"""What a forked process does to itself before it may run model-written code: limits, another user, nothing inherited.

The standard library only, so that a process inside a sandbox can load this file by its path. The order matters: limits and
folders first, then the user, then `landlock` and `seccomp`, which can no longer be undone.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from collections.abc import Collection, Mapping

_NOBODY = 65534
_READ_SEARCH = 2  # CAP_DAC_READ_SEARCH


def limit(*, memory_bytes: int, file_bytes: int, open_files: int, processes: int | None = None) -> None:
    """Hard limits on this process and its descendants; those that are lower already stay.

    Args:
        memory_bytes: address space of a process.
        file_bytes: size of a file.
        open_files: descriptors of a process.
        processes: processes and threads of this process's user, on the whole machine; root is not bound by it.
    """
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_RTPRIO, 0),
        (resource.RLIMIT_NPROC, processes),
    ):
        if value is not None:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))
    # Larger writes fail with EFBIG, an exception; the signal would end the interpreter.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def become(uid: int = _NOBODY, *, keep_reading: bool = False) -> None:
    """Be another user and group for good, with no supplementary groups. Needs CAP_SETUID and CAP_SETGID.

    Args:
        keep_reading: keep CAP_DAC_READ_SEARCH, for an interpreter that lies where only its owner may look, such as below /root.
            Only for a process that Landlock then keeps from all else.
    """
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    libc = ctypes.CDLL(None, use_errno=True)
    if keep_reading and libc.prctl(8, 1, 0, 0, 0):  # PR_SET_KEEPCAPS
        raise OSError(ctypes.get_errno(), "the kernel refused to keep capabilities")
    os.setresuid(uid, uid, uid)
    if keep_reading:
        bit = 1 << _READ_SEARCH
        sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable; the upper halves
        if libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), sets) or libc.prctl(47, 2, _READ_SEARCH, 0, 0):  # PR_CAP_AMBIENT
            raise OSError(ctypes.get_errno(), "the kernel refused CAP_DAC_READ_SEARCH")


def harden() -> None:
    """No gain of privileges by exec, and no other process of the same user may trace this one or read its memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((38, 1), (4, 0)):  # PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"the kernel refused prctl {option}")


def show() -> None:
    """Undo what hid this process from others of its user, such as a change of user."""
    ctypes.CDLL(None, use_errno=True).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none leaves this process's tree."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(36, 1, 0, 0, 0):  # PR_SET_CHILD_SUBREAPER
        raise OSError(ctypes.get_errno(), "the kernel refused to make this process a subreaper")


def die_with_parent() -> None:
    """SIGKILL when the thread that forked this process ends."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def close_descriptors(keep: Collection[int]) -> None:
    """Close all but the given ones."""
    low = 0
    for descriptor in sorted(keep):
        if low < descriptor:  # closerange(0, 0) closes everything
            os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, 1 << 20)  # whatever the limit: some may be older than it, and lie above


def environment(values: Mapping[str, str]) -> None:
    """Exactly these variables, for this process and what it starts.

    What stood there at start stays in the process's memory, which `harden` hides: a zygote should start without secrets.
    """
    os.environ.clear()
    ctypes.CDLL(None).clearenv()  # what libraries set by themselves is not in os.environ
    os.environ.update(values)
