"""Steps a second of `agentdistill/ALFWorld-v0` in two worker processes against one, and with `--here` against this process.

Measured is what a rollout waits for: the seconds in `EnvPool.ask` of whole batches, everybody's reset and then everybody's
step, turn after turn, each batch of new games. How a command is chosen, a model's work in a rollout, is not counted. All sides
play the same games by the same commands and take turns within one run, a batch each, first one and then the other; what they
answer is compared. Each side plays one batch first that is not counted, so that processes have started.

Prints a table and, last, one JSON object: `ratio` is the median of the batches' ratios of steps a second, and `ratio_steps`
that of the steps alone, of which a batch waits, at every turn, for the worker whose steps take longest. Two workers need two
idle cores: on a busy machine, `chrt -r 5` before the command (as root) lets nothing else run beside it.

    AGENTDISTILL_DATA=… python benchmarks/env_pool.py [--slots 32] [--turns 30] [--repeats 5] [--workers 2] [--here]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from dataclasses import dataclass
from typing import Any

from agentdistill import environment
from agentdistill.pool import EnvPool, Question, Workers

ENV = "agentdistill/ALFWorld-v0"
LISTED = "Admissible commands: "


def command(observation: str, key: str) -> str:
    """One of the commands that an observation lists, chosen by `key`."""
    listed = observation.rpartition(LISTED)[2].rstrip(".").split(", ")
    return random.Random(key).choice(listed)


@dataclass
class Batch:
    """Seconds of the resets and of all steps, and every answer."""

    resets: float
    steps: float
    said: list[list[Any]]

    def rate(self, resets: bool = True) -> float:
        """Steps a second."""
        return sum(map(len, self.said[1:])) / (self.steps + self.resets * resets)


def play(pool: EnvPool, seeds: list[int], turns: int) -> Batch:
    """Play a batch of games."""
    questions = [Question(slot, "reset", (seed,)) for slot, seed in enumerate(seeds)]
    seconds, said, live = list[float](), list[list[Any]](), list(range(len(seeds)))
    for turn in range(turns + 1):
        began = time.perf_counter()
        said.append(pool.ask(questions))
        seconds.append(time.perf_counter() - began)
        answers = {slot: answer for slot, answer in zip(live, said[-1], strict=True) if not answer.terminated}
        live = list(answers)  # some games are won by chance
        commands = {slot: command(answers[slot].observation, f"{seeds[slot]} {turn}") for slot in live}
        questions = [Question(slot, "step", (text,)) for slot, text in commands.items()]
    pool.release(range(len(seeds)))
    return Batch(seconds[0], sum(seconds[1:]), said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--here", action="store_true", help="play in this process too")
    arguments = parser.parse_args()
    options = {"max_turns": arguments.turns + 1}
    sides = {
        count: EnvPool(ENV, options, workers=Workers(count))
        for count in ([0] if arguments.here else []) + [1, arguments.workers]
    }
    seeds = list(environment.task_seeds(sides[1].prototype(), "train"))
    played: dict[int, list[Batch]] = {count: [] for count in sides}
    equal = True
    for repeat in range(arguments.repeats + 1):
        games = seeds[repeat * arguments.slots : (repeat + 1) * arguments.slots]
        batches = {count: play(sides[count], games, arguments.turns) for count in sorted(sides, reverse=bool(repeat % 2))}
        equal = equal and all(batch.said == batches[1].said for batch in batches.values())
        for count, batch in batches.items():
            if repeat:
                played[count].append(batch)
                print(
                    f"batch {repeat}: {count} workers {batch.rate():7.1f} steps/s with {arguments.slots} resets,"
                    f" {batch.rate(False):7.1f} without, load {os.getloadavg()[0]:.1f}"
                )
    for pool in sides.values():
        pool.close()

    def ratios(over: int, under: int, resets: bool = True) -> list[float]:
        return [round(a.rate(resets) / b.rate(resets), 3) for a, b in zip(played[over], played[under], strict=True)]

    many = ratios(arguments.workers, 1)
    by_workers = {str(count): round(statistics.median(batch.rate() for batch in played[count]), 1) for count in sides}
    print(
        json.dumps(
            {
                "benchmark": "env_pool", "env": ENV, "slots": arguments.slots, "turns": arguments.turns,
                "workers": arguments.workers, "steps_per_second_by_workers": by_workers, "answers_equal": equal,
                "ratio": statistics.median(many), "ratios": many,
                "ratio_steps": statistics.median(ratios(arguments.workers, 1, False)),
                "one_worker_over_this_process": statistics.median(ratios(1, 0)) if arguments.here else None,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
