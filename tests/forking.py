"""Runs `agentdistill …` in forks of a process that has imported everything, so that killing it often costs little.

    python -m tests.forking

Takes a JSON list of words a line; answers with the process id, and with the exit code when that process has ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Self

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


class Forks:
    """The other end of such a process."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "tests.forking"]
        self._process = subprocess.Popen(words, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    def start(self, words: list[str], output: str) -> int:
        """Begin a command, whose output and errors go to a file; its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([output, *words]) + "\n")
        self._process.stdin.flush()
        return self._line()

    def wait(self) -> int:
        """The exit code of the command, negative for a signal."""
        return self._line()

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def _run(output: str, words: list[str]) -> None:
    from agentdistill.cli import main

    code = 70
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    import agentdistill.api  # noqa: F401  (what every command imports)

    for line in sys.stdin:
        file, *rest = json.loads(line)
        if not (child := os.fork()):
            _run(file, rest)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
