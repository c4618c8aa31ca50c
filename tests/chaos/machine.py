"""What the harness needs of the machine: a clock that no stop disturbs, processes by their mark, a small disk to be filled."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

MARK = "AGENTDISTILL_CHAOS"
"""The variable that names a run; whatever it starts inherits it."""
_TICK = 0.01
_LONGEST_TICK = 1.0  # a longer one is a harness that was stopped itself, which is nobody's fault


class Hang(Exception):
    """Nothing happened for too long."""


class Stopwatch:
    """Seconds since it was made, without those in which this process was stopped while it waited for something."""

    stopped = 0.0  # in `until`, of all of them

    def __init__(self) -> None:
        self._began, self._stopped = time.monotonic(), Stopwatch.stopped

    @property
    def seconds(self) -> float:
        """So far."""
        return time.monotonic() - self._began - (Stopwatch.stopped - self._stopped)


def until(happened: Callable[[], object], seconds: float, what: str, sign: Callable[[], object] = lambda: None) -> None:
    """Wait for something, as long as there is a sign of life.

    Args:
        seconds: that may pass without it, or without another value of `sign`; those in which this process was stopped do not
            count.

    Raises:
        Hang: naming `what` was waited for.
    """
    left, before, seen = seconds, time.monotonic(), sign()
    while not happened():
        time.sleep(_TICK)
        now = time.monotonic()
        left -= min(now - before, _LONGEST_TICK)
        Stopwatch.stopped += max(0.0, now - before - _LONGEST_TICK)
        before = now
        if (shown := sign()) != seen:
            left, seen = seconds, shown
        if left < 0:
            raise Hang(f"no {what} within {seconds:g} s")


@dataclass(frozen=True)
class Process:
    """A process of a run, as it was when it was looked for.

    Attributes:
        words: its command line.
        variables: of its environment, as it began with.
        parent: whose child it is.
        began: clock ticks since the machine started, so that a number that is used again is not taken for it.
    """

    pid: int
    words: tuple[str, ...]
    variables: dict[str, str]
    parent: int
    began: str

    @classmethod
    def read(cls, pid: int) -> Self | None:
        """None where there is none (any more), or it has ended and is only to be reaped."""
        try:
            folder = Path(f"/proc/{pid}")
            state, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            pairs = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            return None
        variables = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        return None if state in "ZX" else cls(pid, tuple(words), variables, int(rest[0]), rest[18])

    @property
    def alive(self) -> bool:
        """Whether it is still there, and not another one of its number."""
        found = Process.read(self.pid)
        return found is not None and found.began == self.began

    def signal(self, number: int) -> bool:
        """Send it a signal; whether it was there."""
        with contextlib.suppress(ProcessLookupError):
            if self.alive:
                os.kill(self.pid, number)
                return True
        return False

    def pause(self, seconds: float) -> bool:
        """Stop it for so long, or until somebody ends it; whether it was there."""
        if not self.signal(signal.SIGSTOP):
            return False
        with contextlib.suppress(Hang):
            until(lambda: not self.alive, seconds, "end")
        self.signal(signal.SIGCONT)
        return True


def marked(mark: str) -> list[Process]:
    """Every process of a run, wherever it was moved to: by the mark that it inherited, or from such a one by descent.

    Some programs, such as Ray's, write their name over the variables that they began with.
    """
    every = _every()
    return _family(every, {pid for pid, each in every.items() if each.variables.get(MARK) == mark})


def beneath(pids: set[int]) -> list[Process]:
    """Processes of these numbers, and all that descend from them."""
    every = _every()
    return _family(every, pids & every.keys())


def _every() -> dict[int, Process]:
    found = [Process.read(int(each.name)) for each in Path("/proc").iterdir() if each.name.isdigit()]
    return {each.pid: each for each in found if each is not None}


def _family(every: dict[int, Process], found: set[int]) -> list[Process]:
    while more := {pid for pid, each in every.items() if each.parent in found} - found:
        found |= more
    return [every[pid] for pid in sorted(found)]


class Disk:
    """A small file system in memory, where this process may mount one; elsewhere a folder, which nobody can fill.

    Args:
        folder: is made.
        size: MiB.
    """

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self._ballast = folder, folder / "ballast"
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)]
        self.mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0

    def fill(self, room: int) -> bool:
        """Leave `room` bytes; False where there is no disk of our own."""
        if not self.mounted:
            return False
        with self._ballast.open("wb", buffering=0) as file:
            size = 0
            with contextlib.suppress(OSError):
                while written := file.write(bytes(1 << 16)):
                    size += written
            file.truncate(max(0, size - room))
        return True

    def clear(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take it away, with what is on it."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)
