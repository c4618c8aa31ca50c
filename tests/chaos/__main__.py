"""Blows by hand, for as long as is wanted.

    python -m tests.chaos --minutes 30 --seed 7

Prints a line a blow, what was found, and at the end one line of JSON with all that was done. It exits with 1 where something
was found; `--folder` then holds the log and the folder of each such run. What falls, and when, follows from the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import json
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.blows import BLOWS
from tests.chaos.campaign import CASES, Campaign
from tests.chaos.machine import Stopwatch
from tests.forking import Forks

HERE = [name for name, case in CASES.items() if "ray" not in case.has or importlib.util.find_spec("ray") is not None]


def main() -> int:
    """The campaign, round by round."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--minutes",
        type=float,
        default=30,
        help="how long, without those in which it is stopped; a round that has begun is ended",
    )
    parser.add_argument("--seed", type=int, default=None, help="by default a new one, which is printed")
    parser.add_argument("--blows", type=int, default=8, help="blows a round")
    parser.add_argument("--only", nargs="+", default=[], choices=list(BLOWS), help="kinds of blow; all by default")
    parser.add_argument(
        "--cases", nargs="+", default=HERE, choices=list(CASES), help="experiments; by default all that can run here"
    )
    parser.add_argument(
        "--forks", action="store_true", help="start in forks of a process that has imported everything: for a busy machine"
    )
    parser.add_argument("--folder", type=Path, default=None, help="by default a temporary one")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if asked.seed is None else asked.seed
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="agentdistill-chaos-"))
    print(f"seed {seed}, in {folder}", flush=True)
    watch = Stopwatch()

    def say(line: str) -> None:
        print(f"{watch.seconds:7.1f} s  {line}", flush=True)

    with Forks(undrawn=True) if asked.forks else contextlib.nullcontext() as forks:
        campaign = Campaign(folder, seed, say, asked.only, forks)
        with contextlib.suppress(KeyboardInterrupt):  # what was done until then is said all the same
            for case in itertools.cycle(asked.cases):
                if watch.seconds > 60 * asked.minutes:
                    break
                campaign.round(case, asked.blows)
    print(json.dumps({"seed": seed, "seconds": round(watch.seconds)} | campaign.tally.as_dict()))
    return bool(campaign.tally.faults)


if __name__ == "__main__":
    sys.exit(main())
