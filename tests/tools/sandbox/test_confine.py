"""What a forked process does to itself: limits that hold, a user that cannot be left, nothing inherited, nobody outlived."""

import contextlib
import ctypes
import errno
import faulthandler
import mmap
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from agentdistill.tools.sandbox import confine, seccomp, tally
from tests.needs import missing
from tests.tools.sandbox.forked import Died, forked

ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not ROOT, reason="only root can become another user")
UID = 61_000 + os.getpid() % 4_000  # nobody else's, so that counts of its processes are ours
MIB = 1 << 20
GENEROUS = {"memory_bytes": 1 << 40, "file_bytes": 64 * MIB, "open_files": 256}
LIMITED = {
    "memory_bytes": resource.RLIMIT_AS, "file_bytes": resource.RLIMIT_FSIZE, "open_files": resource.RLIMIT_NOFILE,
}  # fmt: skip
NONE = (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_RTPRIO)
CAPABILITIES = {"CapInh", "CapPrm", "CapEff", "CapAmb"}


def status(pid="self"):
    """Fields of /proc/pid/status."""
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def limited(function, *arguments, **limits):
    """A function's result in a child with limits; generous ones where none are given."""

    def run():
        confine.limit(**{**GENEROUS, **limits})
        return function(*arguments)

    return forked(run)


def address_space():
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def above_all_descriptors():
    """The first number above all that are open: the tests before may have left some."""
    return max(map(int, os.listdir("/proc/self/fd"))) + 1


def become_somebody():
    """Another user where this is root: root is bound by few limits."""
    if ROOT:
        confine.become(UID)


@pytest.fixture
def folder():
    """A folder that everybody may enter and write in."""
    made = Path(tempfile.mkdtemp(prefix="agentdistill-confine-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


# Limits


def test_memory_above_the_limit_is_a_memory_error_and_the_process_goes_on():
    def allocate():
        confine.limit(**{**GENEROUS, "memory_bytes": address_space() + 128 * MIB})
        kept = bytearray(32 * MIB)
        with pytest.raises(MemoryError):  # what the tests before have freed, a good many GiB perhaps, may be had again
            [bytearray(256 * MIB) for _ in range(64)]
        with pytest.raises(OSError, match="Cannot allocate memory"):
            mmap.mmap(-1, 256 * MIB)
        return len(kept)

    assert forked(allocate) == 32 * MIB


def test_a_file_above_the_limit_is_an_error_and_no_signal_ends_the_process(folder):
    def fill():
        with open(folder / "file", "wb", buffering=0) as file:
            assert file.write(bytes(2 * MIB)) == MIB  # as much as fits
            with pytest.raises(OSError, match="File too large"):
                file.write(b"x")
            with pytest.raises(OSError, match="File too large"):
                file.truncate(3 * MIB)
        return (folder / "file").stat().st_size

    assert limited(fill, file_bytes=MIB) == MIB


def test_no_more_descriptors_than_the_limit_are_open():
    limit = above_all_descriptors() + 10

    def fill():
        last = -1
        for _ in range(limit + 1):
            try:
                last = max(last, os.open("/dev/null", os.O_RDONLY))
            except OSError as error:
                return error.errno, last
        return 0, last

    assert limited(fill, open_files=limit) == (errno.EMFILE, limit - 1)


def test_a_process_that_crashes_leaves_no_core(folder):
    def crash():
        resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
        confine.limit(**GENEROUS)
        faulthandler.disable()
        os.chdir(folder)
        pid = os.fork()
        if pid == 0:
            os.abort()
        return os.WCOREDUMP(os.waitpid(pid, 0)[1]), os.listdir(folder)

    assert forked(crash) == (False, [])


def test_no_memory_is_locked_no_time_is_real_and_no_queue_is_made():
    def attempt():
        for kind in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_RTPRIO):
            with contextlib.suppress(ValueError):  # root without CAP_SYS_RESOURCE
                resource.setrlimit(kind, (MIB, MIB))
        become_somebody()
        confine.limit(**GENEROUS)
        libc = ctypes.CDLL(None, use_errno=True)
        page = ctypes.create_string_buffer(mmap.PAGESIZE)
        assert libc.mlock(page, mmap.PAGESIZE) == -1
        with pytest.raises(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        column = os.uname().machine != "x86_64"
        make, remove = (seccomp.NUMBERS[name][column] for name in ("mq_open", "mq_unlink"))
        made = libc.syscall(make, b"agentdistill-confine", os.O_CREAT | os.O_RDWR, 0o600, None)
        number = ctypes.get_errno()
        libc.syscall(remove, b"agentdistill-confine")
        return made, number

    made, number = forked(attempt)
    assert made == -1
    assert number in {errno.EMFILE, errno.ENOSYS}  # the latter where a kernel is built without queues


def test_processes_and_threads_of_the_user_are_limited():
    def fork():
        become_somebody()
        confine.limit(**GENEROUS, processes=1)  # this one
        with pytest.raises(RuntimeError, match="can't start new thread"):
            threading.Thread(target=time.sleep, args=(0,)).start()
        with pytest.raises(BlockingIOError):
            os.fork()
        return True

    assert forked(fork)


@only_root
def test_as_many_processes_run_as_the_limit_says():
    # Not UID: children of earlier tests that outlived their parents, and the zombies of them, count until someone reaps them.
    alone = next(uid for uid in random.sample(range(61_000, 65_000), 100) if uid != UID and not tally.tasks_of_user(uid))

    def fork():
        confine.become(alone)
        confine.limit(**GENEROUS, processes=4)
        children = []
        with contextlib.suppress(BlockingIOError):
            while len(children) < 10:
                children.append(os.fork())
                if children[-1] == 0:
                    confine.die_with_parent()
                    signal.pause()
        there = tally.tasks_of_user(alone)
        for child in children:
            os.kill(child, signal.SIGKILL)
        return len(children), there

    assert forked(fork) == (3, 4)


def test_limits_are_hard_and_those_that_are_lower_stay():
    def look():
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 30))
        confine.limit(**GENEROUS, processes=1000)
        become_somebody()
        found = {name: resource.getrlimit(kind) for name, kind in LIMITED.items()}
        for kind in (*LIMITED.values(), *NONE):
            soft, hard = resource.getrlimit(kind)
            with pytest.raises(ValueError, match="not allowed to raise maximum limit"):
                resource.setrlimit(kind, (soft, hard + 1))
            with pytest.raises(ValueError, match="not allowed to raise maximum limit"):
                resource.setrlimit(kind, (soft, resource.RLIM_INFINITY))
        confine.limit(**{name: 10 * value for name, value in GENEROUS.items()})  # asks for more, and gets no error
        assert {name: resource.getrlimit(kind) for name, kind in LIMITED.items()} == found
        return found, {resource.getrlimit(kind) for kind in NONE}

    found, none = forked(look)
    assert found == {name: (value, value) for name, value in {**GENEROUS, "open_files": 30}.items()}
    assert none == {(0, 0)}


def test_what_is_started_is_limited_too():
    script = "import resource; print(*(resource.getrlimit(k) for k in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)))"

    def run():
        return subprocess.run([sys.executable, "-SIc", script], capture_output=True, text=True, check=True).stdout

    limit = above_all_descriptors() + 20
    assert limited(run, open_files=limit) == f"({limit}, {limit}) (0, 0)\n"


# Another user


@only_root
def test_another_user_has_no_groups_and_no_capabilities_and_cannot_turn_back():
    def look():
        os.setgroups([0, 4, 27])
        confine.become(UID)
        for back in (
            lambda: os.setuid(0), lambda: os.seteuid(0), lambda: os.setresuid(-1, 0, -1), lambda: os.setgid(0),
            lambda: os.setegid(0), lambda: os.setgroups([0]), lambda: confine.become(UID + 1), lambda: os.chroot("/"),
        ):  # fmt: skip
            with pytest.raises(PermissionError):
                back()
        fields = status()
        return os.getresuid(), os.getresgid(), os.getgroups(), {int(fields[name], 16) for name in CAPABILITIES}, fields["Uid"]

    same = "\t".join([str(UID)] * 4)  # the fourth is the file system's
    assert forked(look) == ((UID,) * 3, (UID,) * 3, [], {0}, same)


@only_root
def test_another_user_reaches_what_everybody_may_reach_and_no_more(folder):
    (folder / "closed").write_text("secret")
    (folder / "closed").chmod(0o600)
    (folder / "group").write_text("secret")
    (folder / "group").chmod(0o640)
    (folder / "open").write_text("text")
    (folder / "open").chmod(0o644)

    def look(**options):
        confine.become(UID, **options)
        found = {}
        for name in ("closed", "group", "open"):
            with contextlib.suppress(PermissionError):
                found[name] = (folder / name).read_text()
            with pytest.raises(PermissionError):
                (folder / name).write_text("changed")
        with pytest.raises(PermissionError):
            os.kill(1, 0)
        return found

    assert forked(look) == {"open": "text"}


def test_without_the_right_to_it_no_other_user_is_become():
    def attempt():
        become_somebody()
        confine.become(os.getuid() + 1)

    with pytest.raises(PermissionError):
        forked(attempt)


@only_root
def test_reading_everywhere_can_be_kept_and_nothing_else(folder):
    if not int(status()["CapPrm"], 16) & 1 << 2:
        missing("root without CAP_DAC_READ_SEARCH, as in a default container, has no such right to keep")
    (folder / "closed").write_text("secret")
    (folder / "closed").chmod(0o600)
    shutil.copy(shutil.which("cat"), folder / "cat")

    def look():
        confine.become(UID, keep_reading=True)
        with pytest.raises(PermissionError):
            (folder / "closed").write_text("changed")
        for back in (lambda: os.setuid(0), lambda: os.setgroups([0]), lambda: os.kill(1, 0), lambda: os.chroot("/")):
            with pytest.raises(PermissionError):
                back()
        ran = subprocess.run([folder / "cat", folder / "closed"], capture_output=True, text=True, check=True)
        fields = status()
        return (folder / "closed").read_text(), ran.stdout, {int(fields[name], 16) for name in CAPABILITIES}, os.getresuid()

    assert forked(look) == ("secret", "secret", {1 << 2}, (UID,) * 3)


# Hardening


def test_no_privileges_are_gained_and_nothing_is_dumped():
    def look():
        libc = ctypes.CDLL(None)
        before = libc.prctl(39, 0, 0, 0, 0), libc.prctl(3, 0, 0, 0, 0)  # PR_GET_NO_NEW_PRIVS, PR_GET_DUMPABLE
        confine.harden()
        return before, (libc.prctl(39, 0, 0, 0, 0), libc.prctl(3, 0, 0, 0, 0)), libc.prctl(38, 0, 0, 0, 0)

    assert forked(look) == ((0, 1), (1, 0), -1)


@only_root
def test_a_setuid_program_gives_nothing(folder):
    program = folder / "id"
    shutil.copy(shutil.which("id"), program)
    program.chmod(0o4755)

    def run(hardened):
        confine.become(UID)
        if hardened:
            confine.harden()
        return int(subprocess.run([program, "-u"], capture_output=True, text=True, check=True).stdout)

    if os.statvfs(folder).f_flag & os.ST_NOSUID:
        pytest.skip(f"{folder} is mounted without setuid programs")
    assert forked(run, False) == 0
    assert forked(run, True) == UID


def test_others_of_the_same_user_read_no_memory_of_a_hardened_process():
    def look():
        become_somebody()
        found = {}
        for name, acts in {"plain": [confine.show], "hard": [confine.harden], "shown": [confine.harden, confine.show]}.items():
            ready, go = os.pipe(), os.pipe()
            victim = os.fork()
            if victim == 0:
                for act in acts:
                    act()
                os.write(ready[1], b"x")
                os.read(go[0], 1)
                os._exit(0)
            os.read(ready[0], 1)
            found[name] = []
            for file in ("mem", "environ"):
                try:
                    os.close(os.open(f"/proc/{victim}/{file}", os.O_RDONLY))
                except PermissionError:
                    continue
                found[name].append(file)
            os.write(go[1], b"x")
            os.waitpid(victim, 0)
        return found

    assert forked(look) == {"plain": ["mem", "environ"], "hard": [], "shown": ["mem", "environ"]}


# Nobody outlives


@pytest.mark.parametrize("adopts", [True, False])
def test_orphans_come_to_the_process_that_adopts(adopts):
    def daemon(write):
        os.setsid()
        parent = os.getpid()
        if os.fork():
            os._exit(0)
        os.setsid()
        signal.alarm(15)
        while os.getppid() == parent:
            time.sleep(0.001)
        os.write(write, f"{os.getpid()} {os.getppid()}".encode())
        os._exit(7)

    def adopt():
        if adopts:
            confine.adopt_orphans()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            daemon(write)
        os.waitpid(child, 0)
        orphan, parent = map(int, os.read(read, 100).split())
        try:
            return parent == os.getpid(), os.waitstatus_to_exitcode(os.waitpid(orphan, 0)[1])
        except ChildProcessError:
            return parent == os.getpid(), None

    assert forked(adopt) == ((True, 7) if adopts else (False, None))


@pytest.mark.parametrize("follows", [True, False])
@pytest.mark.parametrize("killed", [True, False])
def test_a_child_that_says_so_dies_with_its_parent(killed, follows):
    def child(told):
        signal.alarm(15)
        if follows:
            become_somebody()  # a change of user undoes what was said before
            confine.die_with_parent()
        os.write(told, str(os.getpid()).encode())
        while True:
            signal.pause()

    def family():
        alive, held = os.pipe()  # is at its end when nobody holds the other any more
        ready, told = os.pipe()
        go, let = os.pipe()
        parent = os.fork()
        if parent == 0:
            os.close(let)
            if os.fork() == 0:
                child(told)
            os.read(go, 1)  # until the grandparent lets go
            os._exit(0)
        for each in (held, go, told):
            os.close(each)
        found = int(os.read(ready, 100))
        if killed:
            os.kill(parent, signal.SIGKILL)
        os.close(let)
        os.waitpid(parent, 0)
        died = bool(select.select([alive], [], [], 10 if follows else 0.2)[0])
        if not died:
            os.kill(found, signal.SIGKILL)
        return died

    assert forked(family) == follows


# Nothing is inherited


@pytest.mark.parametrize("keep", [[], [0], [0, 1, 2], [5], [0, 3, 4, 9], [200]])
def test_all_descriptors_but_the_named_are_closed(keep):
    def run():
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(write, 20)  # here and not before: 20 may be a pipe of the parent's
            nothing = os.open("/dev/null", os.O_RDONLY)
            for descriptor in {*range(20), *range(21, 60), 200, 900} - {nothing}:
                os.dup2(nothing, descriptor)
            confine.close_descriptors({*keep, 20})
            found = [each for each in range(1000) if is_open(each)]
            os.write(20, repr(found).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        return os.read(read, 10_000).decode()

    assert forked(run) == repr(sorted({*keep, 20}))


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_with_nothing_to_keep_everything_is_closed():
    def run():
        pid = os.fork()
        if pid == 0:
            confine.close_descriptors([])
            os._exit(sum(map(is_open, range(1000))))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert forked(run) == 0


def test_descriptors_above_a_limit_that_came_later_are_closed_too():
    def run():
        nothing = os.open("/dev/null", os.O_RDONLY)
        os.dup2(nothing, 700)
        confine.limit(**{**GENEROUS, "open_files": 100})
        pid = os.fork()
        if pid == 0:
            confine.close_descriptors([0, 1, 2])
            os._exit(is_open(700))
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert forked(run) == 0


def test_the_environment_is_what_is_named_and_no_more(monkeypatch):
    monkeypatch.setenv("AGENTDISTILL_SECRET", "hidden")

    def run():
        # What a library sets by itself, as readline does its LINES, does not stand in os.environ.
        ctypes.CDLL(None).setenv(b"SET_BY_A_LIBRARY", b"1", 1)
        confine.environment({"HOME": "/nowhere"})
        env = subprocess.run(["/usr/bin/env"], capture_output=True, text=True, check=True).stdout
        return dict(os.environ), env

    assert forked(run) == ({"HOME": "/nowhere"}, "HOME=/nowhere\n")


# The helper itself, on which these files stand


def test_a_child_gives_back_results_and_errors_and_says_how_it_died():
    assert forked(lambda: (1, b"x" * (1 << 20))) == (1, b"x" * (1 << 20))  # more than a pipe holds
    with pytest.raises(FileNotFoundError, match="nowhere"):
        forked(os.stat, "/nowhere")
    with pytest.raises(RuntimeError, match=r"^Odd: 7$"):
        forked(odd)
    for code, end in ((7, lambda: os._exit(7)), (-signal.SIGKILL, lambda: os.kill(os.getpid(), signal.SIGKILL))):
        with pytest.raises(Died) as died:
            forked(end)
        assert died.value.code == code


def odd():
    class Odd(Exception):
        pass

    raise Odd(7)
