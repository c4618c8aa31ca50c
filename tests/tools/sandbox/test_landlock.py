"""Landlock: what a confined process may still reach, on this kernel and where the kernel acts as an older one."""

import ctypes
import errno
import fcntl
import itertools
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading

import pytest

from agentdistill.tools.sandbox import landlock, seccomp
from tests.needs import missing
from tests.tools.sandbox.forked import forked

ABI = landlock.abi()
TCGETS = 0x5401
LIBRARIES = [path for path in ("/usr/lib", "/usr/lib64", "/lib", "/lib64") if os.path.exists(path)]
BYTES = b"text"


def needs_abi(version):
    if version > ABI:
        missing(f"this kernel's Landlock is version {ABI}, and this needs {version}")


@pytest.fixture
def tree(tmp_path):
    """Folders `read` and `write` that rules will name, `outside` that none does, each with a file and a folder."""
    needs_abi(1)
    for name in ("read", "write", "outside"):
        (tmp_path / name / "folder").mkdir(parents=True)
        (tmp_path / name / "file").write_bytes(BYTES)
    return tmp_path


def confined(tree, function, *arguments, version=ABI, devices=()):
    """A function's result in a child that may read `read` and write `write`."""

    def run():
        landlock.abi = lambda: version
        landlock.restrict([str(tree / "read")], [str(tree / "write")], devices)
        return function(*arguments)

    return forked(run)


def refused(function, *arguments):
    """Whether the kernel refuses, for want of a right (EXDEV where moving would widen what a file may)."""
    try:
        function(*arguments)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EXDEV}:
            raise
        return True
    return False


def test_what_holds_is_told_by_the_kernels_version():
    needs_abi(1)
    for version in range(1, ABI + 1):

        def restrict(version=version):
            landlock.abi = lambda: version
            return landlock.restrict([], [])

        right = {"files"} | ({"tcp"} if version >= 4 else set()) | ({"abstract sockets", "signals"} if version >= 6 else set())
        assert forked(restrict) == right


def test_a_process_that_is_confined_gains_no_privileges(tree):
    status = confined(tree, lambda: ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))  # PR_GET_NO_NEW_PRIVS
    assert status == 1


def test_files_are_read_where_a_rule_says_so_and_nowhere_else(tree):
    def look():
        for name in ("read", "write"):
            assert (tree / name / "file").read_bytes() == BYTES
            assert sorted(os.listdir(tree / name)) == ["file", "folder"]
        return refused((tree / "outside" / "file").read_bytes), refused(os.listdir, tree / "outside"), refused(os.listdir, "/")

    assert confined(tree, look) == (True, True, True)


def test_nothing_is_changed_where_a_rule_says_read(tree):
    read = tree / "read"
    changes = {
        "write": lambda: (read / "file").open("r+b"),
        "append": lambda: (read / "file").open("ab"),
        "empty": lambda: (read / "file").open("wb"),
        "make": (read / "new").touch,
        "folder": (read / "new").mkdir,
        "symlink": lambda: (read / "new").symlink_to("file"),
        "pipe": lambda: os.mkfifo(read / "new"),
        "link": lambda: (read / "new").hardlink_to(read / "file"),
        "rename": lambda: (read / "file").rename(read / "new"),
        "remove": (read / "file").unlink,
        "remove folder": (read / "folder").rmdir,
    }
    assert confined(tree, lambda: {name: refused(change) for name, change in changes.items()}) == dict.fromkeys(changes, True)
    assert sorted(os.listdir(read)) == ["file", "folder"]
    assert (read / "file").read_bytes() == BYTES


def test_anything_but_devices_and_sockets_is_made_and_removed_where_a_rule_says_write(tree):
    write = tree / "write"

    def change():
        (write / "new").mkdir()
        (write / "new" / "file").write_bytes(BYTES * 2)
        os.truncate(write / "new" / "file", 4)
        (write / "symlink").symlink_to("new/file")
        (write / "link").hardlink_to(write / "new" / "file")
        os.mkfifo(write / "pipe")
        (write / "file").unlink()
        (write / "folder").rmdir()
        (write / "pipe").rename(write / "moved")
        (write / "link").rename(write / "new" / "link")
        with socket.socket(socket.AF_UNIX) as server:
            return (
                refused(server.bind, str(write / "socket")),
                refused(os.mknod, write / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
                refused(os.mknod, write / "device", stat.S_IFBLK | 0o600, os.makedev(7, 0)),
            )

    assert confined(tree, change) == (True, True, True)
    assert sorted(os.listdir(write)) == ["moved", "new", "symlink"]
    assert (write / "symlink").read_bytes() == BYTES


def test_programs_run_from_where_a_rule_says_so_and_from_nowhere_else(tree):
    for name in ("read", "write", "outside"):
        shutil.copy("/usr/bin/true", tree / name / "true")

    def run():
        landlock.restrict([str(tree / "read"), *LIBRARIES, sys.base_prefix], [str(tree / "write")], ["/dev/null"])
        codes = [subprocess.run([tree / name / "true"], check=False).returncode for name in ("read", "write")]
        return codes, refused(subprocess.run, [tree / "outside" / "true"])

    assert forked(run) == ([0, 0], True)


def test_what_is_started_is_confined_too(tree):
    script = (
        f"import os, sys; print(open({str(tree / 'read' / 'file')!r}).read())\n"
        f"try: open({str(tree / 'outside' / 'file')!r})\nexcept PermissionError as error: print(error.errno)"
    )

    def run():
        landlock.restrict([str(tree / "read"), *LIBRARIES, sys.base_prefix], [], ["/dev/null"])
        command = [os.path.realpath(sys.executable), "-SIc", script]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert forked(run) == f"text\n{errno.EACCES}\n"


def test_files_move_and_are_linked_only_between_folders_with_the_same_rights(tree):
    (tree / "write" / "folder" / "file").write_bytes(BYTES)

    def move():
        inside = tree / "write" / "folder"
        assert not refused((tree / "write" / "file").rename, inside / "moved")
        assert not refused((tree / "write" / "linked").hardlink_to, inside / "file")
        return [
            refused(act, source, target)
            for act in (os.rename, os.link)
            for source, target in (
                (tree / "read" / "file", inside / "copy"),  # what is read would be written
                (tree / "outside" / "file", inside / "copy"),  # what is closed would be read
                (inside / "file", tree / "outside" / "copy"),
                (inside / "file", tree / "read" / "copy"),
            )
        ]

    needs_abi(2)
    assert confined(tree, move) == [True] * 8
    assert all(sorted(os.listdir(tree / name)) == ["file", "folder"] for name in ("read", "outside"))
    # Before version 2 the kernel itself refuses whatever leaves its folder.
    assert confined(tree, lambda: refused((tree / "write" / "folder" / "file").rename, tree / "write" / "up"), version=1)


def test_files_are_cut_by_their_path_only_where_a_rule_says_write(tree):
    needs_abi(3)
    assert confined(tree, lambda: refused(os.truncate, tree / "read" / "file", 0))
    assert confined(tree, lambda: refused(os.truncate, tree / "outside" / "file", 0))
    # Which is why a filter must refuse `truncate` where the version is older.
    assert not confined(tree, lambda: refused(os.truncate, tree / "outside" / "file", 0), version=2)


@pytest.mark.parametrize("version", range(1, 8))
def test_older_versions_hold_what_they_know(tree, version):
    needs_abi(version)

    def look():
        (tree / "write" / "file").write_bytes(BYTES)
        return (
            refused((tree / "outside" / "file").read_bytes),
            refused((tree / "read" / "file").write_bytes, b""),
            refused((tree / "outside" / "new").touch),
        )

    assert confined(tree, look, version=version) == (True, True, True)


def test_devices_are_opened_by_name_and_answer_no_requests(tree):
    needs_abi(5)

    def use():
        with open("/dev/null", "r+b", buffering=0) as device:
            device.write(b"gone")
            with pytest.raises(PermissionError):
                fcntl.ioctl(device, TCGETS, bytes(64))
            assert device.read(1) == b""
        return refused(open, "/dev/zero", "rb"), refused(open, "/dev/full", "wb"), refused(os.listdir, "/dev")

    with open("/dev/null", "rb") as device, pytest.raises(OSError, match="Inappropriate ioctl"):
        fcntl.ioctl(device, TCGETS, bytes(64))
    assert confined(tree, use, devices=["/dev/null"]) == (True, True, True)


def test_no_way_leads_out_of_a_folder(tree):
    secret = tree / "outside" / "file"
    for name in ("read", "write"):
        (tree / name / "out").symlink_to(secret)
        (tree / name / "folder" / "out").symlink_to("../../outside")
    folder = os.open(tree / "outside", os.O_PATH)
    here = os.open(tree / "write", os.O_RDONLY)

    def leave():
        os.chdir(tree / "write")
        (tree / "write" / "own").symlink_to(secret)
        ways = {
            "symlink": tree / "read" / "out",
            "own symlink": tree / "write" / "own",
            "folder": tree / "write" / "folder" / "out" / "file",
            "parents": "folder/../../outside/file",
            "root": f"/proc/self/root{secret}",
            "working folder": "/proc/self/cwd/../outside/file",
            "descriptor": f"/proc/self/fd/{here}/../outside/file",
            "parent process": f"/proc/{os.getppid()}/root{secret}",
        }
        found = {name: refused(os.open, way, os.O_RDONLY) for name, way in ways.items()}
        # A folder that was opened before leads to no more than its path does.
        found["folder opened before"] = refused(lambda: os.open("file", os.O_RDONLY, dir_fd=folder))
        os.chdir(folder)
        found["working folder outside"] = refused(os.open, "file", os.O_RDONLY)
        return found

    found = confined(tree, leave)
    os.close(folder)
    os.close(here)
    assert [name for name, held in found.items() if not held] == []
    assert secret.read_bytes() == BYTES


def test_a_rule_for_a_symlink_is_one_for_what_it_names(tree):
    (tree / "name").symlink_to("outside")
    (tree / "file").symlink_to("read/file")

    def look():
        landlock.restrict([str(tree / "name"), str(tree / "file")], [])
        (tree / "outside" / "file").read_bytes()
        (tree / "read" / "file").read_bytes()
        return refused(os.listdir, tree / "read"), refused((tree / "write" / "file").read_bytes)

    assert forked(look) == (True, True)


def test_a_rule_can_name_a_single_file(tree):
    def change():
        landlock.restrict([str(tree / "read" / "file")], [str(tree / "write" / "file")])
        (tree / "write" / "file").write_bytes(b"other")
        (tree / "read" / "file").read_bytes()
        return refused((tree / "write" / "file").unlink), refused((tree / "read" / "file").write_bytes, b"")

    assert forked(change) == (True, True)


def test_paths_that_do_not_exist_are_left_out(tree):
    def look():
        landlock.restrict([str(tree / "nowhere"), str(tree / "read")], [str(tree / "nowhere")])
        return (tree / "read" / "file").read_bytes(), refused((tree / "nowhere").mkdir)

    assert forked(look) == (BYTES, True)


def test_descriptors_that_were_open_stay_of_use(tree):
    with open(tree / "outside" / "file", "r+b") as file:
        assert confined(tree, lambda: (file.read(), file.write(b"!"), file.flush())[:2]) == (BYTES, 1)
    assert (tree / "outside" / "file").read_bytes() == BYTES + b"!"


def test_restrictions_only_ever_narrow(tmp_path):
    needs_abi(1)
    places = ["a", "a/b", "a/b/c", "d"]
    for place in places:
        (tmp_path / place).mkdir()
        (tmp_path / place / "file").write_bytes(BYTES)

    def may(rules, place):
        """What a list of rules gives: read and write, of the nearest place above and all others above it."""
        above = [name for name in rules if f"{place}/".startswith(f"{name}/")]
        return any(rules[name] for name in above), any(rules[name] == "write" for name in above)

    def look(domains):
        for rules in domains:
            landlock.restrict(*([str(tmp_path / name) for name in rules if rules[name] == kind] for kind in ("read", "write")))
        found = {}
        for place in places:
            file = tmp_path / place / "file"
            found[place] = not refused(file.read_bytes), not refused(file.write_bytes, BYTES)
        return found

    everything = [
        {name: kind for name, kind in zip(places, kinds, strict=True) if kind}
        for kinds in itertools.product(("", "read", "write"), repeat=len(places))
    ]
    draw = random.Random(7)
    for depth in (1, 2, 3):
        for _ in range(20):
            domains = draw.choices(everything, k=depth)
            right = {place: tuple(map(all, zip(*(may(rules, place) for rules in domains), strict=True))) for place in places}
            assert forked(look, domains) == right, domains


def test_threads_that_ran_before_are_not_confined_and_later_ones_are(tree):
    secret = tree / "outside" / "file"

    def run():
        go, found = threading.Event(), {}

        def look(name):
            go.wait()
            found[name] = refused(secret.read_bytes)

        earlier = threading.Thread(target=look, args=("earlier",))
        earlier.start()
        landlock.restrict([], [])
        later = threading.Thread(target=look, args=("later",))
        later.start()
        go.set()
        earlier.join()
        later.join()
        return found

    assert forked(run) == {"earlier": False, "later": True}


def test_tcp_is_closed_both_ways(tree):
    needs_abi(4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()

        def connect():
            with socket.socket() as client, socket.socket() as other:
                return refused(client.connect, address), refused(other.bind, ("127.0.0.1", 0))

        assert confined(tree, connect) == (True, True)
        assert confined(tree, connect, version=3) == (False, False)


def test_abstract_sockets_are_reached_inside_only(tree):
    needs_abi(6)
    name = f"\0agentdistill-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen(4)

        def connect(name):
            with socket.socket(socket.AF_UNIX) as client:
                return refused(client.connect, name)

        def connect_inside():
            with socket.socket(socket.AF_UNIX) as own:
                own.bind(f"{name}-own")
                own.listen(1)
                return connect(f"{name}-own")

        for version in {6, ABI}:
            assert confined(tree, connect, name, version=version)
            assert not confined(tree, connect_inside, version=version)
        assert not confined(tree, connect, name, version=5)


def test_signals_stay_inside(tree):
    needs_abi(6)
    me = os.getpid()

    def send():
        child = os.fork()
        if child == 0:
            landlock.restrict([], [])  # a domain within the domain
            os._exit(0 if refused(os.kill, os.getppid(), 0) and refused(os.kill, me, 0) else 1)
        inner = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        child = os.fork()
        if child == 0:
            signal.pause()
        os.kill(child, signal.SIGKILL)
        return refused(os.kill, me, 0), inner, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    for version in {6, ABI}:
        assert confined(tree, send, version=version) == (True, 0, -signal.SIGKILL)
    assert not confined(tree, lambda: refused(os.kill, me, 0), version=5)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_a_kernel_without_landlock_is_named(number, tmp_path):
    """ENOSYS: it was not built in; EOPNOTSUPP: not switched on at boot; EPERM: a container's filter."""

    def run():
        without_landlock(number)
        assert landlock.abi() == 0
        with pytest.raises(OSError, match=f"^.Errno {number}. Landlock: {os.strerror(number)}$"):
            landlock.restrict([str(tmp_path)], [])
        return os.listdir("/") != []

    assert forked(run)


def without_landlock(number):
    """Make the kernel answer as one that has none."""
    numbers = [444, 445, 446]
    code = [(0x20, 0, 0, 0)]
    for each in numbers:
        code += [(0x15, 0, 1, each), (0x06, 0, 0, 0x50000 | number)]
    code.append((0x06, 0, 0, 0x7FFF0000))
    seccomp.assembled = lambda *_: seccomp.assemble(code)
    seccomp.install()


def test_a_ruleset_is_closed_whatever_happens(tree):
    def run():
        before = os.listdir("/proc/self/fd")
        with pytest.raises(NotADirectoryError):
            landlock.restrict([str(tree / "read" / "file" / "below")], [])
        assert os.listdir("/") != []  # it was not half confined
        assert os.listdir("/proc/self/fd") == before
        landlock.restrict(["/proc"], [])
        return os.listdir("/proc/self/fd") == before

    assert forked(run)
