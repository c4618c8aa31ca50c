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
_MAPS_BYTES = 32 << 20  # of /proc/<pid>/maps, of all processes of a session


def disk_excess(folder: str, pids: Iterable[int], limits: Mapping[str, float]) -> str:
    """Whether the session's files are more or larger than allowed, those too that have no name and are only open or mapped."""
    size = 0
    named = set()
    for inodes, (info, depth) in enumerate(_files(folder), 1):
        size += info.st_blocks * 512
        named.add(info.st_ino)
        if inodes > limits["disk_inodes"]:
            return f"more than {limits['disk_inodes']:.0f} files"
        if depth > _DEEPEST:
            return f"folders more than {_DEEPEST} deep"
    nameless: dict[tuple[bool, int], int] = {}
    mapped: dict[tuple[bool, int], int] = {}
    left = _MAPS_BYTES
    below_folder = os.fsencode(os.path.realpath(folder)).replace(b"\n", rb"\012") + b"/"
    for pid in pids:
        maps = b""
        for task in _tasks(pid):
            _add_open(task, nameless)
            # Threads have their memory in common, but of one that ended, the first as well, none is shown.
            maps = maps or _read(f"{task}/maps", left + 1)
        left -= len(maps)
        if left < 0:  # what is cut off may be what is looked for
            return f"its processes list more than {_MAPS_BYTES / (1 << 20):.0f} MiB of mappings"
        _add_mapped(pid, maps, below_folder, int(limits["file_bytes"]), mapped)
    # By inode alone: stat and maps may name different devices for one file (overlayfs, btrfs), and a session has one folder.
    for memory, inode in mapped.keys() - nameless.keys():
        if memory or inode not in named:  # one of a file's names may be gone and another not
            size += mapped[memory, inode]
    size += sum(nameless.values())
    if size > limits["disk_bytes"]:
        return f"its files hold more than {limits['disk_bytes'] / (1 << 20):.0f} MiB"
    return ""


def _tasks(pid: int) -> list[str]:
    """Folders of a process's threads: each may have a descriptor table of its own."""
    with contextlib.suppress(OSError):
        return [f"/proc/{pid}/task/{tid}" for tid in os.listdir(f"/proc/{pid}/task")]
    return []


def _add_open(task: str, nameless: dict[tuple[bool, int], int]) -> None:
    """Sizes of files without a name that a thread has open, by whether they are of memory, and inode."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"{task}/fd"):
            with contextlib.suppress(OSError):
                info = os.stat(entry.path)
                if stat.S_ISREG(info.st_mode) and info.st_nlink == 0:
                    nameless[os.readlink(entry.path).startswith("/memfd:"), info.st_ino] = info.st_blocks * 512


def _add_mapped(pid: int, maps: bytes, folder: bytes, largest: int, mapped: dict[tuple[bool, int], int]) -> None:
    """Likewise of files that are mapped under a name that is gone; for one that does not show its size, the largest allowed."""
    for line in maps.split(b"\n") if b" (deleted)" in maps else ():
        addresses, *_, inode, path = line.split(None, 5) if line.endswith(b" (deleted)") else (b"", b"", b"")
        memory = path.startswith(b"/memfd:")
        key = memory, int(inode or 0)
        if (memory or path.startswith(folder)) and key not in mapped:
            mapped[key] = largest
            with contextlib.suppress(OSError):  # only root may look
                first, last = (int(each, 16) for each in addresses.split(b"-"))
                mapped[key] = os.stat(f"/proc/{pid}/map_files/{first:x}-{last:x}").st_blocks * 512


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
                _open_to_owner(entry.path)
                count += 1
                moved = os.path.join(folder, f".{os.getpid()}-{count}")
                os.rename(entry.path, moved)
                waiting.append(moved)
        if path != folder:
            with contextlib.suppress(OSError):
                os.rmdir(path)


def _open_to_owner(path: str) -> None:
    """Not a plain chmod: it follows links, and whoever lives on in the folder may put one there meanwhile."""
    itself = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        os.chmod(f"/proc/self/fd/{itself}", 0o700)
    finally:
        os.close(itself)


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


def _read(path: str, most: int = 1 << 20) -> bytes:
    """A file's first bytes: of most files in /proc, one read gives a page at most."""
    data = bytearray()
    try:
        with open(path, "rb", buffering=0) as file:
            while len(data) < most and (more := file.read(most - len(data))):
                data += more
    except OSError:  # it ended meanwhile
        pass
    return bytes(data)
