"""What must not outlive this process: another one waits for its end, and clears up where it could not do so itself.

vLLM starts its engine and workers itself, and they go on when this process is killed: on a GPU they hold the memory that the
resumed run needs. New weights lie in a folder of memory meanwhile. Whoever reads a pipe to its end notices any death.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

# A standard library alone: it is to be there at once, and small. A process's number may be another's by then, so its start
# time has to agree.
_WAITING = """
import os, shutil, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
told = sys.stdin.read().split("\\n")
if told[-1] != "done":
    for line in told:
        kind, _, what = line.partition(" ")
        if kind == "folder":
            shutil.rmtree(what, ignore_errors=True)
        elif kind == "process":
            number, _, began = what.partition(" ")
            try:
                with open(f"/proc/{number}/stat") as file:
                    if file.read().rpartition(")")[2].split()[19] == began:
                        os.kill(int(number), signal.SIGKILL)
            except (OSError, IndexError):
                pass
"""


class Guard:
    """Ends processes and removes folders when this process ends without `close`."""

    def __init__(self) -> None:
        self._waiting = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WAITING], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, text=True,
        )  # fmt: skip

    def folder(self, path: Path) -> None:
        """Take on a folder."""
        self._tell(f"folder {path}\n")

    def processes(self, those: Iterable[psutil.Process]) -> None:
        """Take on processes."""
        for each in those:
            if each.pid == self._waiting.pid:
                continue
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{each.pid}/stat").read_text(encoding="ascii", errors="replace")
                self._tell(f"process {each.pid} {status.rpartition(')')[2].split()[19]}\n")

    def close(self) -> None:
        """All was cleared up; nothing is to be done."""
        self._tell("done")
        if self._waiting.stdin is not None:
            with contextlib.suppress(OSError):
                self._waiting.stdin.close()
        self._waiting.wait()

    def _tell(self, what: str) -> None:
        assert self._waiting.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._waiting.stdin.write(what)
            self._waiting.stdin.flush()


def children() -> list[psutil.Process]:
    """Every process below this one."""
    found: list[psutil.Process] = psutil.Process().children(recursive=True)
    return found
