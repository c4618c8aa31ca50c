"""Counting what a session without namespaces of its own uses: processes below its first one, and files in its folder.

Sessions run in `restricted_init.py`; the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Iterable, Iterator, Mapping

_DEEPEST = 256  # folders within folders


def disk_excess(folder: str, pids: Iterable[int], limits: Mapping[str, float]) -> str:
    """Whether the session's files, open ones without a name too, are more or larger than allowed."""
    size = 0
    for inodes, (info, depth) in enumerate(_files(folder), 1):
        size += info.st_blocks * 512
        if inodes > limits["disk_inodes"]:
            return f"more than {limits['disk_inodes']:.0f} files"
        if depth > _DEEPEST:
            return f"folders more than {_DEEPEST} deep"
    nameless = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    info = os.stat(entry.path)
                    if stat.S_ISREG(info.st_mode) and info.st_nlink == 0:
                        nameless[info.st_dev, info.st_ino] = info.st_blocks * 512
    if size + sum(nameless.values()) > limits["disk_bytes"]:
        return f"its files hold more than {limits['disk_bytes'] / (1 << 20):.0f} MiB"
    return ""


def _files(folder: str) -> Iterator[tuple[os.stat_result, int]]:
    waiting = [(folder, 0)]
    while waiting:
        path, depth = waiting.pop()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.stat(follow_symlinks=False), depth
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append((entry.path, depth + 1))
        except FileNotFoundError:
            continue
        except OSError:  # a name longer than the kernel takes
            yield os.stat(folder), 1 << 20


def empty(folder: str) -> None:
    """Remove all that is in a folder, however deep: folders are first moved up, so that no path is long."""
    count = 0
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        for entry in _entries(path):
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, 0o700)
                count += 1
                moved = os.path.join(folder, f".{os.getpid()}-{count}")
                os.rename(entry.path, moved)
                waiting.append(moved)
        if path != folder:
            with contextlib.suppress(OSError):
                os.rmdir(path)


def _entries(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []


def remove(folder: str) -> None:
    """Remove a folder and all that is in it."""
    empty(folder)
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def kill_trees(roots: Iterable[int]) -> None:
    """Stop everything first, so that nothing is born while it is killed."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for root in roots:
            for pid in [root, *below(root)]:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)


def below(root: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    waiting = [root]
    while waiting and len(found) < 8192:
        pid = waiting.pop()
        known = fields(pid)
        born = children(pid, int(known[17]) if known else 1)
        found += born
        waiting += born
    return found


def children(pid: int, threads: int) -> list[int]:
    """Children of a process that has so many threads."""
    tasks = [str(pid)]
    if threads > 1:
        with contextlib.suppress(OSError):
            tasks = os.listdir(f"/proc/{pid}/task")
    return [int(each) for task in tasks for each in _read(f"/proc/{pid}/task/{task}/children").split()]


def fields(pid: int) -> list[bytes]:
    """The fields of /proc/pid/stat from the third on, or none."""
    data = _read(f"/proc/{pid}/stat")
    return data[data.rindex(b")") + 2 :].split() if b")" in data else []


def proportional(pids: Iterable[int]) -> int:
    """Resident bytes, with a page that several share counted once."""
    total = 0
    for pid in pids:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def tasks_of_user(uid: int) -> int:
    """Processes and threads of a user, as far as this process sees them."""
    tasks = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if entry.stat().st_uid == uid:
                    tasks += int(fields(int(entry.name))[17])
    return tasks


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(1 << 20) or b""
    except OSError:
        return b""
