"""Run a command and say what processes it left behind: `python herd.py 5 command …`; exits as the command does.

A process cannot leave the herd: whatever its session, group, user, name or namespace, it becomes a child of this one when its
own parents end. Processes that somebody else starts for the command (a Docker daemon) are known by the mark in their
environment, which the command finds in its own. What is left after so many seconds is printed as a line of JSON, and ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "AGENTDISTILL_HERD"


def below(root: int) -> list[int]:
    """All descendants of a process, without those that have ended and are only not yet waited for."""
    found: list[int] = []
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            children = [int(each) for task in Path(f"/proc/{pid}/task").glob("*/children") for each in task.read_text().split()]
        except OSError:  # it ended meanwhile
            continue
        waiting += children
        found += [each for each in children if state(each) not in {"Z", "X", ""}]
    return found


def marked(mark: str) -> list[int]:
    """Processes whose environment, as far as this one may see it, holds the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:  # ended, or another user's
            continue
    return found


def state(pid: int) -> str:
    """One letter, as in proc(5); none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def described(pid: int) -> str:
    """For a report."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return f"{pid} {Path(f'/proc/{pid}/comm').read_text().strip()}: {command[:120]}"
    except OSError:
        return f"{pid}, which has ended since"


def reap() -> None:
    """Wait for every child that has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def main(seconds: float, *command: str) -> int:
    """Run the command, report, end what is left; the command's exit code."""
    if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0):  # PR_SET_CHILD_SUBREAPER
        raise OSError(ctypes.get_errno(), "the kernel refused to make this process a subreaper")
    mark = os.urandom(8).hex()
    code = subprocess.run(command, env={**os.environ, MARK: mark}, check=False).returncode
    deadline = time.monotonic() + seconds
    while left := {*below(os.getpid()), *marked(mark)}:
        if time.monotonic() > deadline:
            break
        reap()
        time.sleep(0.05)
    print(json.dumps({"name": "left behind", "wrong": [described(pid) for pid in sorted(left)]}), flush=True)
    while left := {*below(os.getpid()), *marked(mark)}:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
        reap()
    return code


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), *sys.argv[2:]))
