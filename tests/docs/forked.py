"""Runs commands one after the other, each in a process of its own that begins with everything imported.

    python tests/docs/forked.py commands.json output.json        # in the folder where they are to run

A dozen commands would otherwise import torch a dozen times. Nothing has started a thread when a process is forked.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

import agentdistill.api  # noqa: F401  (what every command imports)
from agentdistill.cli import main


def run(words: list[str], said: Path) -> int:
    """The exit code of `agentdistill …`, or of `python FILE`; its output goes to a file."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 70
    try:
        with said.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if words[0] == "python":
            runpy.run_path(words[1], run_name="__main__")
            code = 0
        else:
            code = main(words[1:])
        sys.stdout.flush()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    out = []
    for words in json.loads(Path(sys.argv[1]).read_text()):
        said = Path(sys.argv[2]).with_suffix(".txt")
        code = run(words, said)
        out.append([words, code, said.read_text(encoding="utf-8")])
        if code:
            break
    Path(sys.argv[2]).write_text(json.dumps(out))
