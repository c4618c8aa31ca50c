"""System-call filters for processes that run model-written code: a small BPF assembler, by ctypes and without imports of ours.

The standard library only, so that a process inside a sandbox can load this file by its path. Formats and numbers are those of
linux/filter.h, linux/seccomp.h, linux/audit.h and the kernel's system-call tables (x86_64, aarch64).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Iterable

# name: (x86_64, aarch64); None where an architecture has no such call
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "io_setup": (206, 0), "fallocate": (285, 47), "setsockopt": (54, 208),
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "socketpair": (53, 199),
    "mmap": (9, 222), "clone": (56, 220), "kill": (62, 129), "fcntl": (72, 25), "ioctl": (16, 29), "sendmsg": (46, 211),
    "sendmmsg": (307, 269), "prctl": (157, 167), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195),
    "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189),
    "msgrcv": (70, 188), "msgctl": (71, 187), "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "ptrace": (101, 117), "syslog": (103, 116),
    "rt_sigqueueinfo": (129, 138), "utime": (132, None), "uselib": (134, None), "personality": (135, 92),
    "setpriority": (141, 140), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "vhangup": (153, 58),
    "modify_ldt": (154, None), "pivot_root": (155, 41), "_sysctl": (156, None), "adjtimex": (159, 171),
    "setrlimit": (160, 164), "chroot": (161, 51), "acct": (163, 89), "settimeofday": (164, 170), "mount": (165, 40),
    "umount2": (166, 39), "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "sethostname": (170, 161),
    "setdomainname": (171, 162), "iopl": (172, None), "ioperm": (173, None), "init_module": (175, 105),
    "delete_module": (176, 106), "quotactl": (179, 60), "nfsservctl": (180, 42), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "tkill": (200, 130), "sched_setaffinity": (203, 122), "lookup_dcookie": (212, 18),
    "semtimedop": (220, 192), "clock_settime": (227, 112), "tgkill": (234, 131), "utimes": (235, None),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "kexec_load": (246, 104), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "ioprio_set": (251, 30), "inotify_init": (253, None),
    "migrate_pages": (256, 238), "fchownat": (260, 54), "futimesat": (261, None), "fchmodat": (268, 53),
    "unshare": (272, 97), "move_pages": (279, 239), "utimensat": (280, 88), "inotify_init1": (294, 26),
    "rt_tgsigqueueinfo": (297, 240), "perf_event_open": (298, 241), "fanotify_init": (300, 262),
    "prlimit64": (302, 261), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "clock_adjtime": (305, 266), "setns": (308, 268), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "finit_module": (313, 273), "sched_setattr": (314, 274), "memfd_create": (319, 279),
    "kexec_file_load": (320, 294), "bpf": (321, 280), "userfaultfd": (323, 282), "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "clone3": (435, 435), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "mount_setattr": (442, 442), "quotactl_fd": (443, 443), "memfd_secret": (447, 447),
    "process_mrelease": (448, 448), "fchmodat2": (452, 452), "statmount": (457, 457), "listmount": (458, 458),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "open_tree_attr": (467, 467), "file_setattr": (469, 469),
}  # fmt: skip

# What no program that computes needs: other namespaces, other processes' memory, the kernel's wide side doors, and memory that
# neither RLIMIT_AS nor resident size counts (memfd, System V segments and queues, watches and their events).
_KERNEL = (
    "unshare setns mount umount2 pivot_root chroot open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick "
    "mount_setattr statmount listmount ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp "
    "pidfd_getfd move_pages migrate_pages bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register "
    "add_key request_key keyctl fanotify_init name_to_handle_at open_by_handle_at kexec_load kexec_file_load init_module "
    "finit_module delete_module swapon swapoff reboot quotactl quotactl_fd acct syslog settimeofday clock_settime "
    "adjtimex clock_adjtime sethostname setdomainname vhangup personality lookup_dcookie nfsservctl iopl ioperm "
    "modify_ldt uselib _sysctl memfd_create memfd_secret shmget shmat shmctl semget semop semctl semtimedop msgget msgsnd "
    "msgrcv msgctl mq_open mq_unlink inotify_init inotify_init1"
)
KERNEL = frozenset(_KERNEL.split())
# More, where a session sees the host's processes and files because it has no namespaces of its own: Landlock does not judge
# owners and attributes, a process may tune every other of its user, a file may hide from the disk's watch in a message that is
# not yet received, and rings for asynchronous reads are counted for the whole machine.
_SHARED_HOST = (
    "chown fchown lchown fchownat setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr "
    "removexattrat file_setattr io_setup setpriority ioprio_set sched_setparam sched_setscheduler "
    "sched_setattr sched_setaffinity sendmsg sendmmsg"
)
SHARED_HOST = frozenset(_SHARED_HOST.split())
# There they do nothing and say so to nobody, because copying a file or unpacking an archive ends with one of them.
_IGNORED = ("chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat")

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_STREAM, _SOCK_SEQPACKET = 1, 5
# Namespaces, and CLONE_PARENT, by which a child would be its grandparent's.
_CLONE_FLAGS = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x00008000
_SHARED_ANONYMOUS = 0x01 | 0x20  # MAP_SHARED (also a bit of MAP_SHARED_VALIDATE), MAP_ANONYMOUS
_CLONE_FILES, _CLONE_THREAD = 0x00000400, 0x00010000
_BUFFER_OPTIONS = (7, 32)  # SO_SNDBUF, SO_SNDBUFFORCE
_IOCTLS = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into a terminal
_OWNER_IOCTLS = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP: signals to another process
_OWNER_FCNTLS = (8, 15)  # F_SETOWN, F_SETOWN_EX
_WATCH_FCNTLS = (1024, 1026)  # F_SETLEASE, F_NOTIFY
# What terminals, pipes and sockets are asked (FIONREAD and FIONBIO too), told by the second byte of a request.
_IOCTL_TYPE, _TERMINAL_TYPE = 0xFF00, 0x5400

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06  # classic BPF opcodes
_X32_BIT = 0x40000000
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of NUMBERS, AUDIT_ARCH_*

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


class _Program:
    """Instructions in order; every test jumps over at most one block, so that no offset can overflow its eight bits."""

    def __init__(self, column: int) -> None:
        self.column = column
        self.code: list[Instruction] = []

    def load(self, offset: int) -> None:
        self.code.append((_LOAD, 0, 0, offset))

    def result(self, value: int) -> None:
        self.code.append((_RETURN, 0, 0, value))

    def test(self, opcode: int, constant: int, value: int) -> None:
        """Return `value` where the test of what was loaded holds."""
        self.code.append((opcode, 0, 1, constant))
        self.result(value)

    def call(self, name: str, block: list[Instruction]) -> None:
        """Run a block, which must end in a return, for one system call."""
        number = NUMBERS[name][self.column]
        if number is not None:
            self.code.append((_EQUAL, 0, len(block), number))
            self.code += block

    def refuse(self, name: str, code: int) -> None:
        self.call(name, [(_RETURN, 0, 0, _ERRNO | code)])

    def refuse_where(self, name: str, argument: int, opcode: int, constants: Iterable[int]) -> None:
        """Refuse a call for which a test of the argument's low half holds."""
        part = _Program(self.column)
        part.load(_argument(argument))
        for constant in constants:
            part.test(opcode, constant, _ERRNO | errno.EPERM)
        part.result(_ALLOW)
        self.call(name, part.code)

    def allow_only(
        self, name: str, argument: int, constants: Iterable[int], mask: int = 0xFFFFFFFF, code: int = errno.EPERM
    ) -> None:
        """Refuse a call unless the argument's low half, under a mask, is one of the constants."""
        part = _Program(self.column)
        part.load(_argument(argument))
        part.code.append((_AND, 0, 0, mask))
        for constant in constants:
            part.test(_EQUAL, constant & 0xFFFFFFFF, _ALLOW)
        part.result(_ERRNO | code)
        self.call(name, part.code)


def _argument(index: int) -> int:
    """Offset of an argument's low half in struct seccomp_data (both machines are little-endian)."""
    return 16 + 8 * index


def program(
    deny: Iterable[str] = KERNEL,
    *,
    sockets: bool = True,
    shared_host: bool = False,
    signals_to: int | None = None,
    machine: str | None = None,
) -> list[Instruction]:
    """The filter's instructions.

    Args:
        deny: system calls that answer EPERM, by their names in `NUMBERS`.
        sockets: allow sockets of AF_UNIX and AF_INET(6); otherwise connected AF_UNIX pairs only, whose buffers stay as
            large as the kernel makes them.
        shared_host: the process shares pids and files with the host; refuse what reaches over to them.
        signals_to: the only process, besides the sender's own group, that may be signalled.
        machine: as `os.uname().machine`, which is the default.

    Raises:
        OSError: no filter is known for this machine.
        KeyError: a name that is not in `NUMBERS`.
    """
    machine = machine or os.uname().machine
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no system-call filter is known for {machine}")
    column, architecture = _MACHINES[machine]
    made = _Program(column)
    made.load(4)
    made.code.append((_EQUAL, 1, 0, architecture))
    made.result(_KILL)
    made.load(0)
    if machine == "x86_64":
        made.test(_AT_LEAST, _X32_BIT, _ERRNO | errno.ENOSYS)
    # Its flags lie in memory, which a filter cannot read; libraries fall back to clone.
    made.refuse("clone3", errno.ENOSYS)
    _filter_clone(made)
    _filter_mmap(made)
    _filter_sockets(made, sockets)
    _filter_descriptors(made, shared_host, owners=signals_to is not None)
    # Another process's limits, which its user may lower: 0 is the caller.
    made.allow_only("prlimit64", 0, [0])
    if signals_to is not None:
        _filter_signals(made, signals_to)
    if shared_host:
        for name in _IGNORED:
            made.refuse(name, 0)
        _filter_touch(made)
        # It takes a disk's worth in an instant. libc writes zeros instead, which takes as long as any other writing.
        made.refuse("fallocate", errno.EOPNOTSUPP)
        made.refuse_where("prctl", 0, _EQUAL, [4])  # PR_SET_DUMPABLE: descriptors must stay countable
    for name in sorted({*deny, *(SHARED_HOST if shared_host else ())}):
        made.refuse(name, errno.EPERM)
    made.result(_ALLOW)
    return made.code


def _filter_clone(made: _Program) -> None:
    part = _Program(made.column)
    part.load(_argument(0))
    part.test(_ANY_BIT, _CLONE_FLAGS, _ERRNO | errno.EPERM)
    # A thread with descriptors of its own would have them counted nowhere.
    part.code.append((_AND, 0, 0, _CLONE_FILES | _CLONE_THREAD))
    part.test(_EQUAL, _CLONE_THREAD, _ERRNO | errno.EPERM)
    part.result(_ALLOW)
    made.call("clone", part.code)


def _filter_mmap(made: _Program) -> None:
    """Memory that is shared and no file's stays while a single page of it is mapped, and only that page is resident."""
    part = _Program(made.column)
    part.load(_argument(3))
    part.code.append((_AND, 0, 0, _SHARED_ANONYMOUS))
    part.test(_EQUAL, _SHARED_ANONYMOUS, _ERRNO | errno.EPERM)
    part.result(_ALLOW)
    made.call("mmap", part.code)


def _filter_sockets(made: _Program, sockets: bool) -> None:
    if sockets:
        made.allow_only("socket", 0, (_AF_UNIX, _AF_INET, _AF_INET6), code=errno.EAFNOSUPPORT)
        return
    # A datagram socket of a pair could still send to any address; streams of a pair are connected for good.
    for name in ("socket", "connect", "bind", "listen"):
        made.refuse(name, errno.EPERM)
    made.refuse_where("setsockopt", 2, _EQUAL, _BUFFER_OPTIONS)
    made.allow_only("socketpair", 1, (_SOCK_STREAM, _SOCK_SEQPACKET), mask=0xF)


def _filter_descriptors(made: _Program, shared_host: bool, owners: bool) -> None:
    part = _Program(made.column)
    part.load(_argument(1))
    for request in _IOCTLS + (_OWNER_IOCTLS if owners else ()):
        part.test(_EQUAL, request, _ERRNO | errno.EPERM)
    if shared_host:
        # A file system's requests change flags and make subvolumes through a descriptor that was opened to read.
        part.code.append((_AND, 0, 0, _IOCTL_TYPE))
        part.test(_EQUAL, _TERMINAL_TYPE, _ALLOW)
        part.result(_ERRNO | errno.ENOTTY)
    else:
        part.result(_ALLOW)
    made.call("ioctl", part.code)
    fcntls = (_OWNER_FCNTLS if owners else ()) + (_WATCH_FCNTLS if shared_host else ())
    if fcntls:
        made.refuse_where("fcntl", 1, _EQUAL, fcntls)


def _filter_touch(made: _Program) -> None:
    """`utimensat` does nothing as well, but fails for a path and no times: `Path.touch` makes a file only where it does."""
    part = _Program(made.column)
    part.load(_argument(1))
    part.test(_EQUAL, 0, _ERRNO)
    part.load(_argument(2))
    part.test(_EQUAL, 0, _ERRNO | errno.EPERM)
    part.result(_ERRNO)
    made.call("utimensat", part.code)


def _filter_signals(made: _Program, pid: int) -> None:
    made.allow_only("kill", 0, [0, pid])
    for name in ("tgkill", "rt_tgsigqueueinfo", "rt_sigqueueinfo"):
        made.allow_only(name, 0, [pid])
    for name in ("tkill", "pidfd_send_signal"):
        made.refuse(name, errno.EPERM)


def assemble(instructions: Iterable[Instruction]) -> bytes:
    """As an array of struct sock_filter: what bubblewrap's `--seccomp` reads and the kernel takes."""
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)


@functools.cache  # a zygote that has assembled a filter once hands it to all its children
def assembled(deny: frozenset[str], sockets: bool, shared_host: bool, signals_to: int | None) -> bytes:
    """The filter that `install` puts on a process."""
    return assemble(program(deny, sockets=sockets, shared_host=shared_host, signals_to=signals_to))


def install(
    deny: Iterable[str] = KERNEL, *, sockets: bool = True, shared_host: bool = False, signals_to: int | None = None
) -> None:
    """Put the filter on this process, all its threads and all its descendants, for good; sets no_new_privs.

    Arguments are those of `program`.

    Raises:
        OSError: the kernel refused, or this machine has no filter.
    """
    code = assembled(frozenset(deny), sockets, shared_host, signals_to)
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        raise OSError(ctypes.get_errno(), "the kernel refused no_new_privs")
    number = 317 if os.uname().machine == "x86_64" else 277
    if libc.syscall(number, 1, 1, filter_):  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
        raise OSError(ctypes.get_errno(), "the kernel refused the system-call filter")
