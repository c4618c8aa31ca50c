"""How much memory a process and all that it has started use, from Linux's /proc."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def used(pid: int) -> int:
    """Bytes: resident memory of a process, and of its descendants what no file backs; 0 where the system does not tell.

    Descendants are found in whatever session or group they are, as long as all between them and `pid` live. Their programs'
    and libraries' pages are left out, which several processes share.
    """
    resident, _ = _pages(pid)
    below = descendants(pid)
    return _PAGE * (resident + sum(whole - backed for whole, backed in map(_pages, below)))


def descendants(pid: int) -> list[int]:
    """Process ids, each after its parent's."""
    found, seen = [pid], 0
    while seen < len(found):
        found += _children(found[seen])
        seen += 1
    return found[1:]


def _children(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [int(child) for thread in threads for child in _read(f"/proc/{pid}/task/{thread}/children").split()]


def _pages(pid: int) -> tuple[int, int]:
    """Resident pages, and how many of them belong to files or shared memory."""
    numbers = _read(f"/proc/{pid}/statm").split()
    return (int(numbers[1]), int(numbers[2])) if len(numbers) > 2 else (0, 0)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:  # it has just ended
        return ""
