"""The guessing game's run with logging back-ends, in a process of its own: `python -m tests.loggers.logged_run OUT NAME...`.

Once it has said a line with the text in `KILL` it kills itself, as a machine that loses power would; with that in `STOP` it
ends as after Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys

from agentdistill import api, environment
from tests.conftest import GuessEnv
from tests.training.scored_run import RUN


def main(out: str, backends: list[str]) -> None:
    environment.register("lab/Guess-v0", GuessEnv)
    kill, stop = os.environ.get("KILL", ""), os.environ.get("STOP", "")

    def say(text: str) -> None:
        print(text, flush=True)
        if kill and kill in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if stop and stop in text:
            raise KeyboardInterrupt

    raw = {**RUN, "log": {"backends": backends, "project": "tests"}, "train": {**RUN["train"], "checkpoint_every": 100}}
    try:
        api.train(raw, out=out, resume=True, say=say)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
