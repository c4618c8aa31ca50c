"""Steps a second of `agentdistill/ALFWorld-v0` in two worker processes against one, and with `--here` against this process.

All sides play the same games by the same commands, one batch after another as a rollout does: everybody's reset, then
everybody's step, until the turn limit. They take turns within one run; what they answer is compared. Each side plays one batch
first that is not counted, so that processes have started. Prints a table and, last, one JSON object: `ratio` is the median of
the runs' ratios of steps a second, resets not counted, and `ratio_with_resets` where they are. Two workers need two idle cores:
on a busy machine, `chrt -r 5` before the command (as root) lets nothing else run beside it.

    AGENTDISTILL_DATA=… python benchmarks/env_pool.py [--slots 32] [--turns 30] [--repeats 3] [--workers 2] [--here]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from typing import Any

from agentdistill import environment
from agentdistill.pool import EnvPool, Question, Workers

ENV = "agentdistill/ALFWorld-v0"
LISTED = "Admissible commands: "


def command(observation: str, key: str) -> str:
    """One of the commands that an observation lists, chosen by `key`."""
    listed = observation.rpartition(LISTED)[2].rstrip(".").split(", ")
    return random.Random(key).choice(listed)


def play(pool: EnvPool, seeds: list[int], turns: int) -> tuple[float, float, list[list[Any]]]:
    """Seconds of resets, seconds of steps, and every answer."""
    began = time.perf_counter()
    said = [pool.ask([Question(slot, "reset", (seed,)) for slot, seed in enumerate(seeds)])]
    started = time.perf_counter()
    for turn in range(turns):
        commands = [command(answer.observation, f"{seed} {turn}") for seed, answer in zip(seeds, said[-1], strict=True)]
        said.append(pool.ask([Question(slot, "step", (text,)) for slot, text in enumerate(commands)]))
    return started - began, time.perf_counter() - started, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--here", action="store_true", help="play in this process too")
    arguments = parser.parse_args()
    options = {"max_turns": arguments.turns + 1}
    sides = {
        count: EnvPool(ENV, options, workers=Workers(count))
        for count in ([0] if arguments.here else []) + [1, arguments.workers]
    }
    seeds = list(environment.task_seeds(sides[1].prototype(), "train"))
    rates: dict[int, list[tuple[float, float]]] = {count: [] for count in sides}
    steps, equal = arguments.slots * arguments.turns, True
    for repeat in range(arguments.repeats + 1):
        batch = seeds[repeat * arguments.slots : (repeat + 1) * arguments.slots]
        answers = []
        for count in sorted(sides, reverse=bool(repeat % 2)):
            resets, stepping, said = play(sides[count], batch, arguments.turns)
            answers.append(said)
            if repeat:
                rates[count].append((steps / stepping, steps / (stepping + resets)))
                print(
                    f"repeat {repeat}: {count} workers {steps / stepping:7.1f} steps/s, {steps / (stepping + resets):7.1f} with"
                    f" {arguments.slots} resets, load {os.getloadavg()[0]:.1f}"
                )
        equal = equal and all(each == answers[0] for each in answers)
    for pool in sides.values():
        pool.close()

    def ratio(over: int, under: int, part: int) -> list[float]:
        return [round(a[part] / b[part], 3) for a, b in zip(rates[over], rates[under], strict=True)]

    many = ratio(arguments.workers, 1, 0)
    by_workers = {str(count): round(statistics.median(r[0] for r in rates[count]), 1) for count in sides}
    print(
        json.dumps(
            {
                "benchmark": "env_pool", "env": ENV, "slots": arguments.slots, "turns": arguments.turns,
                "workers": arguments.workers, "steps_per_second_by_workers": by_workers, "answers_equal": equal,
                "ratio": statistics.median(many), "ratios": many,
                "ratio_with_resets": statistics.median(ratio(arguments.workers, 1, 1)),
                "one_worker_over_this_process": statistics.median(ratio(1, 0, 0)) if arguments.here else None,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
