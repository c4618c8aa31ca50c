"""Stored episodes of every built-in environment, replayed: how many differ, and how long it takes against playing them.

    python benchmarks/replay.py [--episodes 200] [--env agentdistill/ALFWorld-v0 …] [--workers 2]

Experts play, with random actions among theirs where an environment offers some; the episodes go through a store on disk. The
last line is one JSON object: by environment, `differ` and `ratio`, the time of replaying over that of playing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from typing import Any

from agentdistill import environment
from agentdistill.chat import Chat
from agentdistill.demonstrations import demonstrate
from agentdistill.policies.tiny import train_tokenizer
from agentdistill.pool import EnvPool, Workers
from agentdistill.registration import BUILT_IN
from agentdistill.replay import replay
from agentdistill.store import Store

TOOLS = {"tools": ["calculator"], "tasks": [{"question": f"{n} + 1?", "answer": n + 1, "split": "train",
         "demonstration": [rf"\boxed{{{n + 1}}}"]} for n in range(500)]}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {"agentdistill/Tools-v0": TOOLS}


def measure(env_id: str, episodes: int, workers: Workers | None) -> dict[str, Any]:
    """Play, store, read, replay."""
    pool = EnvPool(env_id, OPTIONS.get(env_id), workers=workers)
    try:
        prototype = pool.prototype()
        split = next(name for name, seeds in environment.splits(prototype).items() if seeds)
        seeds = list(itertools.islice(itertools.cycle(environment.task_seeds(prototype, split)), episodes))
        noise = 0.3 if hasattr(prototype.unwrapped, "random_action") else 0.0
        began = time.perf_counter()
        chat = Chat(train_tokenizer([""]))
        played = demonstrate(pool, seeds, chat, max_turns=30, max_context=1 << 24, noise=noise)
        playing = time.perf_counter() - began
    finally:
        pool.close()
    with tempfile.TemporaryDirectory() as folder:
        Store(folder).write("played", played)
        began = time.perf_counter()
        report = replay(Store(folder).read("played"), workers=workers)
    replaying = time.perf_counter() - began
    for difference in report.differences[:3]:
        print(difference)
    turns = sum(len(each.turns) for each in played)
    print(
        f"{env_id}: {report.episodes} episodes, {turns} turns, {sum(t.success for t in played)} won; "
        f"{len(report.differences)} differ; played in {playing:.1f} s, replayed in {replaying:.1f} s",
        flush=True,
    )
    return {"episodes": report.episodes, "differ": len(report.differences), "ratio": round(replaying / playing, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--env", nargs="*", default=[e.id for e in environment.catalogue() if e.source == BUILT_IN])
    parser.add_argument("--workers", type=int, default=0)
    chosen = parser.parse_args()
    workers = Workers(chosen.workers) if chosen.workers else None
    print(json.dumps({env_id: measure(env_id, chosen.episodes, workers) for env_id in chosen.env}))


if __name__ == "__main__":
    main()
