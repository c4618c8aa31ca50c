"""Counting a session's files and processes: what has a name, what has none, and what changes while it is counted."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentdistill.tools.sandbox import tally

MIB = 1 << 20
LIMITS = {"disk_inodes": 50.0, "disk_bytes": 8.0 * MIB, "file_bytes": 9.0 * MIB}
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
# Starts two generations below it, says their numbers, and waits for the end of its stdin.
FAMILY = """
import os, sys, threading, time
child = os.fork()
if child == 0:
    grandchild = os.fork()
    if grandchild == 0:
        time.sleep(600)
    print(os.getpid(), grandchild, flush=True)
    time.sleep(600)
sys.stdin.read()
"""


@pytest.fixture
def fill(tmp_path: Path) -> Callable[..., Path]:
    """Makes a file of so many MiB."""

    def made(name: str, mebibytes: float = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * int(mebibytes * MIB))
        return path

    return made


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process, and the numbers of its child and grandchild."""
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        below = [int(word) for word in process.stdout.readline().split()]
        try:
            yield process, below
        finally:
            for pid in [*below, process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Callable[[int, str], Path]]:
    """Makes folders in folders from within, since paths may be longer than the kernel takes; the uppermost is returned."""

    def made(levels: int, name: str) -> Path:
        there = os.open(tmp_path, os.O_RDONLY)
        for _ in range(levels):
            os.mkdir(name, dir_fd=there)
            inner = os.open(name, os.O_RDONLY, dir_fd=there)
            os.close(there)
            there = inner
        os.close(os.open("innermost", os.O_WRONLY | os.O_CREAT, dir_fd=there))
        os.close(there)
        return tmp_path / name

    yield made
    tally.empty(str(tmp_path))


@pytest.fixture
def map_page() -> Iterator[Callable[[int], None]]:
    """Maps a descriptor's first page, without the descriptor that Python's own mmap keeps, until the test ends."""
    mapped = []

    def made(descriptor: int) -> None:
        mapped.append(LIBC.mmap(None, mmap.PAGESIZE, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0))
        assert mapped[-1] != ctypes.c_void_p(-1).value

    yield made
    for address in mapped:
        LIBC.munmap(address, mmap.PAGESIZE)


def excess(folder: Path, *pids: int, **limits: float) -> str:
    return tally.disk_excess(str(folder), pids, LIMITS | limits)


def test_an_empty_folder_is_within_limits(tmp_path: Path) -> None:
    assert excess(tmp_path, disk_inodes=0, disk_bytes=0) == ""


def test_sizes_are_summed_over_the_whole_tree(tmp_path: Path, fill: Callable[..., Path]) -> None:
    for name in ("a", "one/b", "one/two/c"):
        fill(name, 2.5)
    assert excess(tmp_path) == ""
    fill("one/two/three/d", 1)
    assert excess(tmp_path) == "its files hold more than 8 MiB"


def test_what_counts_is_what_a_file_takes_and_not_how_long_it_says_it_is(tmp_path: Path, fill: Callable[..., Path]) -> None:
    os.truncate(fill("sparse"), 1 << 40)
    assert excess(tmp_path) == ""


def test_files_and_folders_are_numbered_together(tmp_path: Path, fill: Callable[..., Path]) -> None:
    for number in range(24):
        fill(f"folder{number}/file")
    assert excess(tmp_path) == ""
    for name in ("one", "two"):
        fill(name)
    assert excess(tmp_path) == ""
    fill("three")
    assert excess(tmp_path) == "more than 50 files"


def test_symbolic_links_are_counted_and_not_followed(tmp_path: Path, fill: Callable[..., Path]) -> None:
    fill("outside/large", 20)
    folder = tmp_path / "session"
    folder.mkdir()
    for name, target in (
        ("file", tmp_path / "outside/large"),
        ("folder", tmp_path / "outside"),
        ("itself", folder),
        ("no", "where"),
    ):
        (folder / name).symlink_to(target)
    assert excess(folder, disk_inodes=4) == ""
    assert excess(folder, disk_inodes=3) == "more than 3 files"


def test_folders_deeper_than_256_are_an_excess(tmp_path: Path, deep: Callable[[int, str], Path]) -> None:
    deep(256, "d")
    assert excess(tmp_path, disk_inodes=10_000) == ""
    deep(257, "e")
    assert excess(tmp_path, disk_inodes=10_000) == "folders more than 256 deep"


def test_folders_whose_paths_are_longer_than_the_kernel_takes_are_an_excess(
    tmp_path: Path, deep: Callable[[int, str], Path]
) -> None:
    deep(30, "d" * 255)
    assert excess(tmp_path) == "folders more than 256 deep"


def test_deleted_files_count_while_they_are_open(tmp_path: Path) -> None:
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.write(b"x" * 9 * MIB)
        file.flush()
        assert list(tmp_path.iterdir()) == []
        assert excess(tmp_path, os.getpid()) == "its files hold more than 8 MiB"
        assert excess(tmp_path) == ""  # of no process of the session
    assert excess(tmp_path, os.getpid()) == ""


def test_memory_files_count(tmp_path: Path) -> None:
    descriptor = os.memfd_create("m")
    try:
        os.write(descriptor, b"x" * 9 * MIB)
        assert excess(tmp_path, os.getpid()) == "its files hold more than 8 MiB"
    finally:
        os.close(descriptor)


def test_a_nameless_file_counts_once_however_often_it_is_open(tmp_path: Path) -> None:
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.write(b"x" * 5 * MIB)
        file.flush()
        copies = [os.dup(file.fileno()) for _ in range(3)]
        with subprocess.Popen(["/bin/sleep", "600"], pass_fds=copies) as other:
            assert excess(tmp_path, os.getpid(), other.pid) == ""
            other.kill()
        for each in copies:
            os.close(each)


def test_named_and_nameless_files_are_one_sum(tmp_path: Path, fill: Callable[..., Path]) -> None:
    fill("named", 5)
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        file.write(b"x" * 5 * MIB)
        file.flush()
        assert excess(tmp_path, os.getpid()) == "its files hold more than 8 MiB"


def test_open_files_with_a_name_are_not_counted_twice(tmp_path: Path, fill: Callable[..., Path]) -> None:
    with fill("named", 5).open("rb"):
        assert excess(tmp_path, os.getpid()) == ""


TOO_LARGE = "its files hold more than 8 MiB"


@pytest.mark.parametrize("name", ["plain", "two\nlines", "re\rturn", "a (deleted)", "spaces  in it ", "d/" + "x" * 255])
def test_deleted_files_count_while_they_are_mapped(
    tmp_path: Path, fill: Callable[..., Path], map_page: Callable[[int], None], name: str
) -> None:
    path = fill(name, 9)
    with path.open("rb") as file:
        map_page(file.fileno())
    path.unlink()
    assert excess(tmp_path, os.getpid()) == TOO_LARGE
    assert excess(tmp_path) == ""  # of no process of the session


def test_mapped_memory_files_count(tmp_path: Path, map_page: Callable[[int], None]) -> None:
    descriptor = os.memfd_create("m")
    os.write(descriptor, b"x" * 9 * MIB)
    map_page(descriptor)
    os.close(descriptor)
    assert excess(tmp_path, os.getpid()) == TOO_LARGE


def test_mapped_files_elsewhere_do_not_count(
    tmp_path: Path, fill: Callable[..., Path], map_page: Callable[[int], None]
) -> None:
    path = fill("session2/file", 9)
    with path.open("rb") as file:
        map_page(file.fileno())
    path.unlink()
    (tmp_path / "session").mkdir()
    assert excess(tmp_path / "session", os.getpid()) == ""


def test_a_nameless_file_counts_once_however_often_it_is_mapped_and_open(
    tmp_path: Path, fill: Callable[..., Path], map_page: Callable[[int], None]
) -> None:
    path = fill("file", 5)
    with path.open("rb") as file:
        path.unlink()
        for _ in range(3):
            map_page(file.fileno())
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
            os._exit(0)
        assert excess(tmp_path, os.getpid(), pid, file_bytes=5 * MIB) == ""
    assert excess(tmp_path, os.getpid(), pid, file_bytes=5 * MIB) == ""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_mapped_file_that_has_another_name_is_not_counted_twice(
    tmp_path: Path, fill: Callable[..., Path], map_page: Callable[[int], None]
) -> None:
    path = fill("file", 5)
    other = tmp_path / "other"
    os.link(path, other)
    with other.open("rb") as file:
        map_page(file.fileno())
    other.unlink()
    assert excess(tmp_path, os.getpid()) == ""


def test_a_file_whose_size_does_not_show_is_taken_for_the_largest_allowed(tmp_path: Path, fill: Callable[..., Path]) -> None:
    line = f"7f0000000000-7f0000001000 r--s 00000000 08:01 77                 {tmp_path}/f (deleted)\n".encode()
    mapped: dict[tuple[bool, int], int] = {}
    tally._add_mapped(os.getpid(), line, os.fsencode(tmp_path) + b"/", 123, mapped)
    assert mapped == {(False, 77): 123}


def test_mappings_too_many_to_read_are_an_excess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(Path("/proc/self/maps").read_bytes())
    assert size > 4096  # more than one read gives
    monkeypatch.setattr(tally, "_MAPS_BYTES", size * 3)
    assert excess(tmp_path, os.getpid()) == ""
    monkeypatch.setattr(tally, "_MAPS_BYTES", size // 2)
    assert "of mappings" in excess(tmp_path, os.getpid())


def test_deleted_files_count_that_only_one_thread_has_open(tmp_path: Path) -> None:
    ready, over = threading.Event(), threading.Event()
    unshared = []

    def hold() -> None:
        unshared.append(LIBC.unshare(0x400))  # CLONE_FILES: a descriptor table of its own
        with tempfile.TemporaryFile(dir=tmp_path) as file:
            file.write(b"x" * 9 * MIB)
            file.flush()
            ready.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        ready.wait()
        assert unshared == [0]
        assert excess(tmp_path, os.getpid()) == TOO_LARGE
    finally:
        over.set()
        thread.join()
    assert excess(tmp_path, os.getpid()) == ""


# Its first thread ends, after which neither its maps nor its descriptors show under the process's own number.
HEADLESS = """
import ctypes, os, sys, threading, time
libc = ctypes.CDLL(None)
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
descriptor = os.open(sys.argv[1], os.O_RDONLY)
libc.mmap(None, 4096, 1, 1, descriptor, 0)
os.close(descriptor)
os.unlink(sys.argv[1])
threading.Thread(target=time.sleep, args=(600,)).start()
libc.syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)
"""


def test_mapped_files_count_of_a_process_whose_first_thread_ended(tmp_path: Path, fill: Callable[..., Path]) -> None:
    with subprocess.Popen([sys.executable, "-c", HEADLESS, fill("file", 9)]) as process:
        try:
            while tally.fields(process.pid)[0] != b"Z":
                time.sleep(0.01)
            assert list(tmp_path.iterdir()) == []
            assert excess(tmp_path, process.pid) == TOO_LARGE
        finally:
            process.kill()


def test_processes_that_are_gone_and_folders_that_are_not_there_hold_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/true"]) as gone:
        gone.wait()
    assert excess(tmp_path / "nowhere", gone.pid) == ""


def test_a_tree_that_changes_while_it_is_counted_is_counted_without_an_error(tmp_path: Path) -> None:
    done, counted, errors = threading.Event(), 0, []

    def change() -> None:
        try:
            while not done.is_set():
                for number in range(20):
                    (tmp_path / f"a{number}" / "b").mkdir(parents=True)
                    (tmp_path / f"a{number}" / "b" / "file").touch()
                (tmp_path / "a0" / "b").rename(tmp_path / "moved")
                (tmp_path / "a1").rename(tmp_path / "a2" / "inside")
                tally.empty(str(tmp_path))
        except OSError as error:
            errors.append(error)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(300):
            counted += excess(tmp_path, os.getpid(), disk_inodes=100) == ""
    finally:
        done.set()
        changing.join()
    assert (counted, errors) == (300, [])


def test_removing_a_folder_leaves_nothing_of_paths_longer_than_the_kernel_takes(
    tmp_path: Path, deep: Callable[[int, str], Path]
) -> None:
    tally.remove(str(deep(30, "d" * 255)))
    tally.remove(str(deep(300, "d")))
    assert list(tmp_path.iterdir()) == []


def test_removing_a_folder_leaves_nothing_of_folders_that_were_closed(tmp_path: Path, fill: Callable[..., Path]) -> None:
    inner = fill("session/closed/inner/file").parent
    inner.chmod(0)
    inner.parent.chmod(0)
    tally.remove(str(tmp_path / "session"))
    assert list(tmp_path.iterdir()) == []


def test_removing_a_folder_does_not_touch_what_its_links_point_to(tmp_path: Path, fill: Callable[..., Path]) -> None:
    kept = fill("outside/kept")
    folder = tmp_path / "session"
    folder.mkdir()
    (folder / "link").symlink_to(kept.parent)
    (folder / "file").symlink_to(kept)
    tally.remove(str(folder))
    assert kept.exists()
    assert not folder.exists()


def test_opening_a_folder_to_its_owner_does_not_follow_a_link(tmp_path: Path) -> None:
    inside, link = tmp_path / "inside", tmp_path / "link"
    inside.mkdir(mode=0)
    link.symlink_to(inside)
    with pytest.raises(OSError, match="not supported"):
        tally._open_to_owner(str(link))
    assert inside.stat().st_mode & 0o777 == 0
    tally._open_to_owner(str(inside))
    assert inside.stat().st_mode & 0o777 == 0o700


def test_emptying_a_folder_keeps_it(tmp_path: Path, fill: Callable[..., Path]) -> None:
    fill("a/b/c")
    fill("d")
    tally.empty(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_descendants_of_every_generation_are_found(family: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, below = family
    assert sorted(tally.below(process.pid)) == sorted(below)
    assert tally.children(process.pid, 1) == below[:1]


def test_a_child_of_any_thread_is_a_child() -> None:
    started: list[subprocess.Popen[bytes]] = []
    over = threading.Event()

    def start() -> None:
        started.append(subprocess.Popen(["/bin/sleep", "600"]))
        over.wait()

    thread = threading.Thread(target=start)
    thread.start()
    try:
        while not started:
            time.sleep(0.01)
        assert started[0].pid in tally.children(os.getpid(), threads=2)
        assert started[0].pid in tally.below(os.getpid())
    finally:
        started[0].kill()
        started[0].wait()
        over.set()
        thread.join()


def test_whole_trees_are_killed_and_nothing_besides(family: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, below = family
    tally.kill_trees(below[:1])
    while any(alive(pid) for pid in below):
        time.sleep(0.01)
    assert process.poll() is None


def alive(pid: int) -> bool:
    fields = tally.fields(pid)
    return bool(fields) and fields[0] not in {b"Z", b"X"}


def test_the_fields_of_a_process_are_found_behind_a_name_with_brackets(tmp_path: Path) -> None:
    program = tmp_path / ") R 1 ("
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "600"]) as process:
        while Path(f"/proc/{process.pid}/comm").read_text() != ") R 1 (\n":
            time.sleep(0.01)
        fields = tally.fields(process.pid)
        process.kill()
    assert fields[0] in {b"S", b"R", b"D"}
    assert int(fields[1]) == os.getpid()
    assert int(fields[17]) == 1
    assert tally.fields(process.pid) == []


def test_shared_pages_count_once() -> None:
    kept = bytearray(b"x") * (64 * MIB)
    reading, writing = os.pipe()
    pids = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        pids.append(pid)
    try:
        together = tally.proportional([os.getpid(), *pids])
        resident = sum(int(tally.fields(pid)[21]) for pid in [os.getpid(), *pids]) * os.sysconf("SC_PAGE_SIZE")
    finally:
        os.close(writing)
        os.close(reading)
        for pid in pids:
            os.waitpid(pid, 0)
    assert len(kept) < together < resident - 2 * len(kept)


def test_threads_and_processes_of_a_user_are_counted() -> None:
    before = tally.tasks_of_user(os.getuid())
    assert before >= threading.active_count()
    assert tally.tasks_of_user(3_999_999_999) == 0
