"""ScienceWorld as it comes (`ScienceWorldEnv.step`) against `agentdistill/ScienceWorld-v0`: the same commands, side by side.

Each task's gold path is played by both, who goes first alternating, and texts are compared (up to the order of the lines: the
original lists things in another order at every load). With `--gold` every task's gold path is played to its end, by ours alone.
Wall seconds, since Java does the work. Prints a table and, last, one JSON object; `ratio` is original seconds a step over ours.

    python benchmarks/scienceworld_engine.py [--tasks 10] [--steps 20] [--gold]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentdistill.envs.scienceworld.env import ScienceWorldEnv
from agentdistill.envs.scienceworld.tasks import TASKS, seed_of


def side_by_side(tasks: int, most: int) -> dict[str, Any]:
    from scienceworld import ScienceWorldEnv as Original

    spent = {"original": 0.0, "ours": 0.0, "original_start": 0.0, "ours_start": 0.0}

    def timed(what: str, work: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        result = work(*arguments)
        spent[what] += time.perf_counter() - began
        return result

    began = time.perf_counter()
    ours = ScienceWorldEnv(max_turns=1000)
    ours.reset(seed=0)
    first_reset = time.perf_counter() - began
    original, steps, equal = Original(), 0, 0
    for index, task in enumerate(TASKS[:: max(1, len(TASKS) // tasks)][:tasks]):
        ours.reset(seed=seed_of(task, 0))
        commands = ours.plan().split(", ")[:most]

        def start(task: str = task) -> None:
            original.load(task, 0, "easy")
            original.reset()

        timed("original_start", start)
        timed("ours_start", lambda task=task: ours.reset(seed=seed_of(task, 0)))
        for command in commands:
            calls = [("original", original.step), ("ours", ours.step)]
            answers = {what: timed(what, call, command) for what, call in (reversed(calls) if index % 2 else calls)}
            texts = answers["original"][0], answers["ours"][4]["text"]
            equal += sorted(texts[0].split("\n")) == sorted(texts[1].split("\n"))
            steps += 1
            if answers["ours"][2]:
                break
        print(f"{task}: {steps} steps, {equal} equal so far", flush=True)
    original.close()
    ours.close()
    return {
        "steps": steps, "equal": equal, "first_reset_seconds": round(first_reset, 2),
        "original_steps_per_second": round(steps / spent["original"], 1),
        "steps_per_second": round(steps / spent["ours"], 1), "ratio": round(spent["original"] / spent["ours"], 2),
        "start_ratio": round(spent["original_start"] / spent["ours_start"], 2),
    }  # fmt: skip


def gold() -> dict[str, Any]:
    """Every task's gold path, of its first variation."""
    env = ScienceWorldEnv(max_turns=1000, templates=False, objects=False)
    solved, steps = 0, []
    for task in TASKS:
        env.reset(seed=seed_of(task, 0))
        info, count = {"score": 0}, 0
        while (action := env.expert_action()) is not None:
            info, count = env.step(action)[4], count + 1
        solved, steps = solved + (info["score"] == 100), [*steps, count]
        print(f"{task}: score {info['score']} after {count} steps", flush=True)
    status = Path(f"/proc/{env._engine.java.pid}/status").read_text()
    env.close()
    memory = int(status.split("VmHWM:")[1].split()[0]) // 1024
    return {"gold_solved": solved, "gold_tasks": len(TASKS), "gold_most_steps": max(steps), "java_peak_mb": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20, help="most steps of each")
    parser.add_argument("--gold", action="store_true", help="play the gold paths of all 30 tasks too")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"benchmark": "scienceworld"} | side_by_side(arguments.tasks, arguments.steps)
    print(json.dumps(figures | (gold() if arguments.gold else {})))


if __name__ == "__main__":
    main()
