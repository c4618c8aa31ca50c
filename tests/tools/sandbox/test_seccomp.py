"""The system-call filter: every verdict by an interpreter of its instructions, and what the kernel makes of it."""

import ctypes
import errno
import fcntl
import functools
import itertools
import mmap
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agentdistill.tools.sandbox import seccomp
from tests.needs import missing
from tests.tools.sandbox.forked import Died, forked

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_* of linux/audit.h
COLUMNS = {"x86_64": 0, "aarch64": 1}
HERE = os.uname().machine
I386, ARM, RISCV64 = 0x40000003, 0x40000028, 0xC00000F3
KILLED, ALLOWED = "killed", "allowed"
OTHER = 4321  # a process
# Newer than some kernels' headers: numbers from 424 on are the same on every machine.
NEWER = {
    "fchmodat2": 452, "statmount": 457, "listmount": 458, "setxattrat": 463, "getxattrat": 464, "listxattrat": 465,
    "removexattrat": 466, "open_tree_attr": 467, "file_getattr": 468, "file_setattr": 469,
}  # fmt: skip
DOES_NOTHING = {"chmod", "fchmod", "fchmodat", "fchmodat2", "utime", "utimes", "futimesat"}  # whatever their arguments
# Whatever else the lists come to hold, the jail and its like are broken without these.
ALWAYS_REFUSED = (
    "unshare setns mount umount2 pivot_root open_tree move_mount fsopen fsmount mount_setattr ptrace process_vm_readv "
    "process_vm_writev bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register keyctl add_key "
    "request_key pidfd_getfd open_by_handle_at kexec_load init_module finit_module memfd_create memfd_secret shmget "
    "inotify_init inotify_init1"
)
ALWAYS_REFUSED_ON_A_SHARED_HOST = (
    "chown fchown lchown fchownat setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat "
    "file_setattr io_setup setpriority ioprio_set sched_setparam sched_setscheduler sched_setattr "
    "sched_setaffinity sendmsg sendmmsg"
)
NEEDED = (
    "read write openat close mmap munmap mprotect brk futex execve exit exit_group wait4 rt_sigaction rt_sigreturn getrandom "
    "clock_gettime nanosleep newfstatat lseek pipe2 dup3 getdents64 unlinkat renameat2 mkdirat ftruncate sched_yield "
    "sched_getaffinity set_robust_list rseq setsid epoll_create1 timerfd_create"
)
OPTIONS = [
    {"sockets": sockets, "shared_host": shared, "signals_to": to}
    for sockets, shared, to in itertools.product((True, False), (True, False), (None, OTHER))
]
NAMESPACES = {
    "NEWNS": 0x00020000, "NEWCGROUP": 0x02000000, "NEWUTS": 0x04000000, "NEWIPC": 0x08000000, "NEWUSER": 0x10000000,
    "NEWPID": 0x20000000, "NEWNET": 0x40000000,
}  # fmt: skip
CLONE_PARENT, CLONE_FILES, CLONE_THREAD = 0x8000, 0x400, 0x10000
FORK, THREAD, VFORK = 0x01200011, 0x003D0F00, 0x4111  # flags with which libc forks, starts threads and spawns
TERMINAL = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}
OWNERS = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP
FILE_REQUESTS = {
    "FS_IOC_SETFLAGS": 0x40086602, "FS_IOC_FSSETXATTR": 0x401C5820, "FS_IOC_ENABLE_VERITY": 0x40806685,
    "FS_IOC_SETVERSION": 0x40087602, "FS_IOC_SET_ENCRYPTION_POLICY": 0x800C6613, "BTRFS_IOC_SUBVOL_CREATE": 0x5000940E,
    "FITRIM": 0xC0185879,
}  # fmt: skip
COMMON_REQUESTS = {
    "TCGETS": 0x5401, "TCGETS2": 0x802C542A, "TIOCGWINSZ": 0x5413, "FIONREAD": 0x541B, "FIONBIO": 0x5421, "FIOCLEX": 0x5451,
    "FIONCLEX": 0x5450,
}  # fmt: skip


@functools.cache
def decoded(code):
    """A filter as an array of struct sock_filter: opcode, jump if true, jump if false, constant."""
    return list(struct.iter_unpack("<HBBI", code))


def interpret(code, number, arguments=(), architecture=MACHINES["x86_64"]):
    """The verdict of a filter as linux/filter.h and seccomp(2) define it: `killed`, `allowed`, or an errno."""
    values = [each & 0xFFFFFFFFFFFFFFFF for each in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("<iIQ6Q", ctypes.c_int32(number).value, architecture, 0x7FFF12345678, *values)
    instructions = decoded(code)
    accumulator, place = 0, 0
    while True:
        opcode, true, false, constant = instructions[place]
        place += 1
        kind, detail = opcode & 0x07, opcode & ~0x07
        if kind == 0 and detail == 0x20:  # BPF_LD | BPF_W | BPF_ABS, in whole words
            assert constant % 4 == 0
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif kind == 4 and detail == 0x50:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= constant
        elif kind == 5 and detail in {0x10, 0x30, 0x40}:  # BPF_JMP | BPF_JEQ, BPF_JGE, BPF_JSET | BPF_K
            holds = {0x10: accumulator == constant, 0x30: accumulator >= constant, 0x40: bool(accumulator & constant)}[detail]
            place += true if holds else false
        elif kind == 6 and detail == 0:  # BPF_RET | BPF_K
            action, rest = constant & 0xFFFF0000, constant & 0xFFFF
            return {0x80000000: KILLED, 0x7FFF0000: ALLOWED, 0x00050000: rest}[action]
        else:
            raise AssertionError(f"not an instruction of seccomp's: {opcode:#x}")


@functools.cache
def table(machine):
    """System calls by name, from the kernel's own headers."""
    if machine == "aarch64":
        path = Path("/usr/include/asm-generic/unistd.h")
    else:
        path = next((p for p in Path("/usr/include").glob("**/asm/unistd_64.h") if "x86_64" in str(p)), Path("/nonexistent"))
    if not path.is_file():
        missing(f"kernel headers with the system calls of {machine} (apt-get install linux-libc-dev)")
    found = dict(re.findall(r"^#define\s+__NR(?:3264)?_(\w+)\s+(\d+)\s*$", path.read_text(), re.MULTILINE))
    for name in ("syscalls", "arch_specific_syscall"):  # a count, and the place of other machines' own
        found.pop(name, None)
    numbers = {name: int(number) for name, number in found.items()}
    if machine == "aarch64":
        numbers = {name: number for name, number in numbers.items() if not 403 <= number <= 423}  # of 32-bit machines
        numbers["newfstatat"] = numbers.pop("fstatat")
    return {**numbers, **NEWER}


@functools.cache
def assembled(machine, deny=seccomp.KERNEL, **options):
    return seccomp.assemble(seccomp.program(deny, machine=machine, **options))


def unlike_allowed(deny, options):
    """Names that are not simply allowed, and the verdicts on them when all arguments are zero."""
    verdicts = {}
    if options["signals_to"] is not None:
        for name in ("tkill", "pidfd_send_signal", "tgkill", "rt_tgsigqueueinfo", "rt_sigqueueinfo"):
            verdicts[name] = errno.EPERM
    if options["sockets"]:
        verdicts["socket"] = errno.EAFNOSUPPORT
    else:
        verdicts |= dict.fromkeys(("socket", "connect", "bind", "listen", "socketpair"), errno.EPERM)
    if options["shared_host"]:
        verdicts |= dict.fromkeys(seccomp.SHARED_HOST, errno.EPERM) | dict.fromkeys(DOES_NOTHING, 0) | {"ioctl": errno.ENOTTY}
        verdicts |= {"utimensat": 0, "fallocate": errno.EOPNOTSUPP}
    return verdicts | dict.fromkeys(deny, errno.EPERM) | {"clone3": errno.ENOSYS}


def verdict(machine, name, *arguments, **options):
    return interpret(assembled(machine, **options), table(machine)[name], arguments, MACHINES[machine])


# What the instructions say


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernels_headers(machine):
    names = {name: numbers[COLUMNS[machine]] for name, numbers in seccomp.NUMBERS.items()}
    assert {name: number for name, number in names.items() if table(machine).get(name) != number} == {}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(f"{value}" for value in options.values()))
def test_every_number_has_the_verdict_of_its_name(machine, options):
    names = {number: name for name, number in table(machine).items()}
    deny = seccomp.KERNEL | {"truncate"}
    code = assembled(machine, deny, **options)
    unlike = unlike_allowed(deny, options)
    verdicts = {number: interpret(code, number, (), MACHINES[machine]) for number in range(1100)}
    right = {number: unlike.get(names.get(number), ALLOWED) for number in verdicts}
    assert {names.get(n, n): verdicts[n] for n in verdicts if verdicts[n] != right[n]} == {}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_opens_the_kernel_is_refused_by_default_and_what_programs_need_is_not(machine):
    for name in ALWAYS_REFUSED.split():
        if name in table(machine):
            assert verdict(machine, name) == errno.EPERM, name
    for name in ALWAYS_REFUSED_ON_A_SHARED_HOST.split():
        if name in table(machine):
            assert verdict(machine, name, shared_host=True) == errno.EPERM, name
            assert verdict(machine, name) == ALLOWED, name
    for options in OPTIONS:
        for name in NEEDED.split():
            assert verdict(machine, name, **options) == ALLOWED, name


@pytest.mark.parametrize("machine", MACHINES)
def test_a_call_by_another_machines_rules_kills(machine):
    code = assembled(machine)
    for architecture in {I386, ARM, RISCV64, 0, *MACHINES.values()} - {MACHINES[machine]}:
        assert {interpret(code, number, (), architecture) for number in (0, 1, 39, 56, 220, 435, 1 << 30)} == {KILLED}


def test_no_x32_number_passes():
    code = assembled("x86_64", frozenset())
    numbers = [*range(0x40000000, 0x40000000 + 600), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
    assert {interpret(code, number) for number in numbers} == {errno.ENOSYS}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("high", [0, 0xDEADBEEF << 32])  # the kernel reads these arguments as 32 bits
class TestArguments:
    def test_clone_makes_threads_and_children_but_no_namespace_and_no_sibling(self, machine, high):
        for flags in (0, FORK, THREAD, VFORK):
            assert verdict(machine, "clone", flags | high) == ALLOWED
            for more in (*NAMESPACES.values(), CLONE_PARENT):
                assert verdict(machine, "clone", flags | more | high) == errno.EPERM, hex(more)
        # All other bits, the place of the exit signal included, are no business of the filter's.
        others = 0xFFFFFFFF & ~sum(NAMESPACES.values()) & ~CLONE_PARENT
        assert verdict(machine, "clone", others | high) == ALLOWED

    def test_threads_share_their_descriptors(self, machine, high):
        for flags in (THREAD, FORK, VFORK):
            right = errno.EPERM if flags & CLONE_THREAD else ALLOWED
            assert verdict(machine, "clone", flags & ~CLONE_FILES | high) == right
            assert verdict(machine, "clone", flags | CLONE_FILES | high) == ALLOWED
        assert verdict(machine, "clone", CLONE_THREAD | high) == errno.EPERM

    def test_shared_memory_that_is_no_files_is_refused(self, machine, high):
        for flags in range(0x80):
            right = errno.EPERM if flags & mmap.MAP_SHARED and flags & mmap.MAP_ANONYMOUS else ALLOWED
            assert verdict(machine, "mmap", 0, 4096, 3, flags | high) == right, hex(flags)

    def test_buffers_of_pairs_are_not_made_larger_where_there_are_only_pairs(self, machine, high):
        for option in range(80):
            right = errno.EPERM if option in {socket.SO_SNDBUF, 32} else ALLOWED  # SO_SNDBUFFORCE
            assert verdict(machine, "setsockopt", 3, socket.SOL_SOCKET, option | high, sockets=False) == right
            assert verdict(machine, "setsockopt", 3, socket.SOL_SOCKET, option | high) == ALLOWED

    def test_touching_by_a_path_without_times_fails_on_a_shared_host(self, machine, high):
        path, times = 0x7FFF0010, 0x7FFF0020
        for arguments, right in {(0, 0): 0, (0, times): 0, (path, 0): errno.EPERM, (path, times): 0}.items():
            # No flag and no descriptor matters.
            assert verdict(machine, "utimensat", 5 | high, *arguments, 0x100 | high, shared_host=True) == right, arguments
            assert verdict(machine, "utimensat", 5 | high, *arguments, 0x100 | high) == ALLOWED

    def test_typing_into_a_terminal_is_refused(self, machine, high):
        for options in OPTIONS:
            for request in TERMINAL.values():
                assert verdict(machine, "ioctl", 0, request | high, **options) == errno.EPERM
                assert verdict(machine, "ioctl", request, 0x5401, **options) == ALLOWED  # TCGETS; a descriptor is no request

    def test_signals_by_a_descriptors_owner_are_refused_where_signals_are(self, machine, high):
        for options in OPTIONS:
            right = errno.EPERM if options["signals_to"] is not None else errno.ENOTTY if options["shared_host"] else ALLOWED
            for request in OWNERS:
                assert verdict(machine, "ioctl", 0, request | high, **options) == right
            right = ALLOWED if options["signals_to"] is None else errno.EPERM
            for command in (fcntl.F_SETOWN, 15):  # F_SETOWN_EX
                assert verdict(machine, "fcntl", 8, command | high, **options) == right

    def test_a_shared_host_answers_files_as_if_its_file_system_knew_no_requests(self, machine, high):
        for options in OPTIONS:
            right = errno.ENOTTY if options["shared_host"] else ALLOWED
            for request in FILE_REQUESTS.values():
                assert verdict(machine, "ioctl", 3, request | high, **options) == right
            for request in COMMON_REQUESTS.values():
                assert verdict(machine, "ioctl", 3, request | high, **options) == ALLOWED
            for kind in set(range(256)) - {0x54, 0x89}:  # the second byte says whose request it is
                assert verdict(machine, "ioctl", 3, kind << 8 | 1 | high, **options) == right, hex(kind)

    def test_watches_by_a_descriptor_are_refused_on_a_shared_host(self, machine, high):
        for options in OPTIONS:
            right = errno.EPERM if options["shared_host"] else ALLOWED
            for command in (fcntl.F_SETLEASE, fcntl.F_NOTIFY):
                assert verdict(machine, "fcntl", 3, command | high, **options) == right
            for command in (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_SETFL, fcntl.F_SETLK, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETOWN):
                assert verdict(machine, "fcntl", 8, command | high, **options) == ALLOWED

    def test_sockets_are_local_and_internet_ones_or_none(self, machine, high):
        for family in range(-1, 50):
            right = ALLOWED if family in {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6} else errno.EAFNOSUPPORT
            assert verdict(machine, "socket", family & 0xFFFFFFFF | high, 1) == right, family
            assert verdict(machine, "socket", family & 0xFFFFFFFF | high, 1, sockets=False) == errno.EPERM

    def test_without_sockets_only_connected_pairs_are_made(self, machine, high):
        flags = [0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC]
        for kind, flag in itertools.product(range(11), flags):
            right = ALLOWED if kind in {socket.SOCK_STREAM, socket.SOCK_SEQPACKET} else errno.EPERM
            assert verdict(machine, "socketpair", 1, kind | flag | high, sockets=False) == right, (kind, flag)
            assert verdict(machine, "socketpair", 1, kind | flag | high) == ALLOWED

    def test_limits_of_other_processes_are_out_of_reach(self, machine, high):
        for pid in (1, OTHER, 0xFFFFFFFF):
            assert verdict(machine, "prlimit64", pid | high, 7) == errno.EPERM
        assert verdict(machine, "prlimit64", high, 7) == ALLOWED

    def test_signals_reach_one_process_and_the_senders_group(self, machine, high):
        send = functools.partial(verdict, machine, signals_to=OTHER)
        for pid in (0, OTHER):
            assert send("kill", pid | high, 9) == ALLOWED
        for pid in (1, OTHER + 1, -1, -OTHER, 9):
            for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
                assert send(name, pid & 0xFFFFFFFF | high, OTHER, OTHER) == errno.EPERM, (name, pid)
                assert verdict(machine, name, pid & 0xFFFFFFFF | high, OTHER, OTHER) == ALLOWED
        for name in ("tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
            assert send(name, OTHER | high, 1) == ALLOWED
        for name in ("tkill", "pidfd_send_signal"):  # a thread's or a descriptor's number says nothing about whose it is
            assert send(name, OTHER | high, 1) == errno.EPERM

    def test_a_process_stays_countable_on_a_shared_host(self, machine, high):
        for option in range(1, 80):
            right = errno.EPERM if option == 4 else ALLOWED  # PR_SET_DUMPABLE
            assert verdict(machine, "prctl", option | high, 1, shared_host=True) == right
            assert verdict(machine, "prctl", option | high, 1) == ALLOWED


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(f"{value}" for value in options.values()))
def test_programs_are_what_the_kernel_takes(machine, options):
    code = assembled(machine, **options)
    instructions = decoded(code)
    assert len(instructions) <= 4096  # BPF_MAXINSNS
    assert instructions[-1][0] == 6
    for place, (opcode, true, false, constant) in enumerate(instructions):
        if opcode & 7 == 5:
            assert place + 1 + max(true, false) < len(instructions)
        if opcode & 7 == 0:
            assert constant < 64  # sizeof(struct seccomp_data)


def test_an_unknown_machine_is_named():
    with pytest.raises(OSError, match="no system-call filter is known for riscv64"):
        seccomp.program(machine="riscv64")


def test_an_unknown_call_is_an_error_and_not_a_hole():
    with pytest.raises(KeyError, match="unshaer"):
        seccomp.program({"unshaer"})


# What the kernel makes of them


def call(name, *arguments):
    """A system call's errno, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = table(HERE)[name]
    done = libc.syscall(number, *[ctypes.c_long(each) for each in arguments])
    return ctypes.get_errno() if done < 0 else 0


def filtered(function, *arguments, **options):
    """A function's result in a child with the filter on."""

    def run():
        os.setsid()  # no terminal to lose, should the filter let something through
        seccomp.install(**options)
        return function(*arguments)

    return forked(run)


@pytest.mark.parametrize("shared_host", [False, True])
def test_every_listed_call_is_refused_by_the_kernel(shared_host):
    refused = seccomp.KERNEL | (seccomp.SHARED_HOST if shared_host else frozenset())
    names = sorted(name for name in refused if name in table(HERE))

    def attempt():
        # Without the filter these arguments are bad addresses and numbers, with other answers.
        return {name: call(name, *[-1] * 6) for name in names}

    assert filtered(attempt, shared_host=shared_host) == dict.fromkeys(names, errno.EPERM)


def test_programs_run_as_they_did_before(tmp_path):
    def work():
        path = tmp_path / "file"
        path.write_text("text")
        path.rename(tmp_path / "other")
        thread = threading.Thread(target=lambda: (tmp_path / "thread").write_bytes(bytes(mmap.PAGESIZE)))
        thread.start()
        thread.join()
        left, right = socket.socketpair()
        left.sendall(b"over")
        ran = subprocess.run([sys.executable, "-SIc", "print(6 * 7)"], capture_output=True, text=True, check=True)
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        return sorted(os.listdir(tmp_path)), right.recv(4), ran.stdout, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert filtered(work, sockets=False, shared_host=True) == (["other", "thread"], b"over", "42\n", 7)


def test_a_program_that_is_executed_keeps_the_filter_and_gains_no_privileges():
    script = (
        "import ctypes, os; l = ctypes.CDLL(None, use_errno=True); l.unshare(0); "
        "print(ctypes.get_errno(), [x.split()[1] for x in open('/proc/self/status') if x.startswith(('NoNew', 'Seccomp:'))])"
    )

    def run():
        return subprocess.run([sys.executable, "-SIc", script], capture_output=True, text=True, check=True).stdout

    assert forked(run).startswith("0 ")  # unshare(0) asks for nothing, and nobody minds
    assert filtered(run) == "1 ['1', '2']\n"


def test_threads_that_ran_before_are_filtered_too():
    def run():
        go, answers = threading.Event(), []

        def other():
            go.wait()
            answers.append(call("unshare", 0))

        thread = threading.Thread(target=other)
        thread.start()
        seccomp.install()
        go.set()
        thread.join()
        return answers

    assert forked(run) == [errno.EPERM]


def test_a_filter_can_be_added_to_but_not_taken_off():
    def run():
        seccomp.install({"truncate"})
        seccomp.install(frozenset())
        seccomp.install({"unshare"})
        return call("truncate", 0, 0), call("unshare", 0)

    assert forked(run) == (errno.EPERM, errno.EPERM)


def test_only_connected_pairs_are_left_of_sockets():
    def attempt():
        found = {}
        for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
            found[family] = call("socket", family, socket.SOCK_STREAM, 0)
        with pytest.raises(PermissionError):
            socket.socketpair(type=socket.SOCK_DGRAM)
        pair = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with pytest.raises(PermissionError):
            pair[0].connect("\0anywhere")
        return {*found.values()}

    assert filtered(attempt, sockets=False) == {errno.EPERM}


def test_room_for_a_file_is_made_by_writing_on_a_shared_host(tmp_path):
    def attempt():
        with open(tmp_path / "file", "wb") as file:
            answer = call("fallocate", file.fileno(), 0, 0, 1 << 16)
            os.posix_fallocate(file.fileno(), 0, 1 << 16)
        return answer, os.path.getsize(tmp_path / "file")

    assert filtered(attempt, shared_host=True) == (errno.EOPNOTSUPP, 1 << 16)
    assert filtered(attempt) == (0, 1 << 16)


def test_other_families_are_not_supported_and_servers_are():
    def attempt():
        answers = {name: call("socket", getattr(socket, name), socket.SOCK_RAW, 0) for name in ("AF_NETLINK", "AF_PACKET")}
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            client.sendall(b"hello")
            return answers, server.accept()[0].recv(5)

    refused = dict.fromkeys(("AF_NETLINK", "AF_PACKET"), errno.EAFNOSUPPORT)
    assert filtered(attempt) == (refused, b"hello")


def test_signals_reach_the_own_process_and_no_other():
    parent = os.getpid()

    def run():
        me = os.getpid()
        seccomp.install(signals_to=me)
        got = []
        signal.signal(signal.SIGUSR1, lambda *_: got.append("own"))
        os.kill(me, signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
        for pid in (parent, -1, 1):
            with pytest.raises(PermissionError):
                os.kill(pid, 0)
        with pytest.raises(PermissionError):
            signal.pidfd_send_signal(os.pidfd_open(parent), 0)
        with socket.socketpair()[0] as end, pytest.raises(PermissionError):
            fcntl.fcntl(end, fcntl.F_SETOWN, parent)
        return got

    assert forked(run) == ["own", "own"]


def test_owners_modes_times_and_flags_of_files_stay_on_a_shared_host(tmp_path):
    path = tmp_path / "file"
    path.write_text("text")
    path.chmod(0o640)
    os.utime(path, (1, 2))
    before = path.stat()

    def attempt():
        path.chmod(0o777)  # says nothing, and does nothing
        os.utime(path, (3, 4))
        with pytest.raises(PermissionError):
            os.chown(path, os.getuid(), os.getgid())
        with pytest.raises(PermissionError):
            os.setxattr(path, "user.more", b"1")
        with open(path) as file:
            for request in FILE_REQUESTS.values():
                with pytest.raises(OSError, match="Inappropriate ioctl"):
                    fcntl.ioctl(file, request, bytes(128))
            with pytest.raises(PermissionError):
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            return os.isatty(file.fileno()), fcntl.ioctl(file, COMMON_REQUESTS["FIONREAD"], bytes(4))

    assert filtered(attempt, shared_host=True) == (False, struct.pack("i", 4))
    after = path.stat()
    assert (after.st_mode, after.st_mtime, after.st_ctime_ns) == (before.st_mode, 2, before.st_ctime_ns)


@pytest.mark.skipif(HERE != "x86_64", reason="the 32-bit way into the kernel is x86's")
def test_the_32_bit_way_into_the_kernel_kills():
    def getpid():
        # mov eax, 20 (getpid of i386); int 0x80; ret
        page = mmap.mmap(
            -1,
            mmap.PAGESIZE,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
            prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
        )
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return ctypes.CFUNCTYPE(ctypes.c_int)(address)() == os.getpid()

    try:
        assert forked(getpid)
    except Died:
        pytest.skip("this kernel has no 32-bit system calls")
    with pytest.raises(Died) as died:
        filtered(getpid)
    assert died.value.code == -signal.SIGSYS
