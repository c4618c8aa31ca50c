"""Runs commands in forks of a process that has imported everything, so that a dozen commands import torch once.

    python -m tests.forking [MODULE ...] [--undrawn]

Takes a line of JSON a command, `{"words": [...], "output": FILE, "variables": {...}}`; answers with the process id, and with
the exit code when that process has ended. The words are `agentdistill …` without the first, or `python FILE`. Nothing has
started a thread when a process is forked. With `--undrawn`, reports have no pictures (see
`tests/undrawn.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
UNDRAWN = "--undrawn"
ENVIRONMENT = {
    **os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
}  # fmt: skip


class Forks:
    """The other end of such a process, whose commands run in a folder (the repository by default).

    Args:
        modules: to be imported before anything is forked, beside the package.
        undrawn: reports have no pictures (see `tests/undrawn.py`).
    """

    def __init__(self, folder: Path = ROOT, modules: Sequence[str] = (), *, undrawn: bool = False) -> None:
        words = [sys.executable, "-m", "tests.forking", *modules, *[UNDRAWN] * undrawn]
        self._output = folder / ".output"
        self._process = subprocess.Popen(
            words, cwd=folder, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    def start(self, words: Sequence[str], output: str, **variables: str) -> int:
        """Begin a command, whose output and errors go to a file, over what is there; its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"words": list(words), "output": output, "variables": variables}) + "\n")
        self._process.stdin.flush()
        return self._line()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code of the command, negative for a signal.

        Raises:
            TimeoutError: after so many seconds.
        """
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise TimeoutError
        return self._line()

    @property
    def busy(self) -> bool:
        """Whether the command that was begun last goes on."""
        return not select.select([self._process.stdout], [], [], 0)[0]

    def run(self, words: Sequence[str], **variables: str) -> tuple[int, str]:
        """A command to its end: its exit code, and what it printed."""
        self.start(words, str(self._output), **variables)
        return self.wait(), self._output.read_text(encoding="utf-8")

    def _line(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def _run(words: list[str], output: str, variables: dict[str, str]) -> None:
    """A command in this process, which ends with it."""
    code = 70
    try:
        os.environ.update(variables)
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        try:
            code = _command(words)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _command(words: list[str]) -> int:
    if words[0] != "python":
        return main(words)
    runpy.run_path(words[1], run_name="__main__")
    return 0


if __name__ == "__main__":
    import importlib
    import runpy
    import traceback

    import agentdistill.api  # noqa: F401  (what every command imports)
    from agentdistill.cli import main
    from tests.undrawn import undrawn

    with contextlib.suppress(ImportError):
        import pandas  # noqa: F401  (what pyarrow imports where it is installed, half a second in each command)
    for module in [each for each in sys.argv[1:] if each != UNDRAWN]:
        importlib.import_module(module)
    with undrawn() if UNDRAWN in sys.argv[1:] else contextlib.nullcontext():
        for line in sys.stdin:
            if not (child := os.fork()):
                _run(**json.loads(line))
            print(child, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
