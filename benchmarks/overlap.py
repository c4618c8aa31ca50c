"""The next episodes played during the update (`engine.overlap`) against one after the other, and a picture of both.

The same experiment twice in one process: eight episodes an iteration in an environment that takes its time (it sleeps, as one
that waits for a server does), a small student and a small teacher. The first iteration is not counted. Prints
a line a run and, last, one JSON object; `ratio` is the seconds an iteration takes one after the other over those with overlap,
the median of the repeats. `--figure` draws the last repeat's iterations.

    python benchmarks/overlap.py [--iterations 5] [--seconds 0.25] [--repeats 3] [--figure docs/img/overlap.png]
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

from agentdistill.config import parse_experiment
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.policies.tiny import tiny_model, train_tokenizer
from agentdistill.rollout import Rollout
from agentdistill.training import loop
from agentdistill.training.session import Session

GAME = Path(__file__).with_name("slow_game.py")
Span = tuple[str, float, float]
COLOURS = {"rollout": "#4c72b0", "score": "#dd8452", "update": "#55a868"}


def recorded(spans: list[Span], phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which notes when it ran."""

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spans.append((phase, began, time.perf_counter()))

    return timed


def run(models: Path, overlap: bool, options: argparse.Namespace) -> tuple[float, list[Span]]:
    """Seconds an iteration, and what ran when, from the second iteration on."""
    raw = {
        "env": {
            "id": "benchmark/Slow-v0", "module": str(GAME), "workers": options.tasks, "max_turns": options.turns,
            "options": {"turns": options.turns, "seconds": options.seconds, "every": 1}, "max_context": 512,
        },
        "student": {"model": str(models / "student")}, "teacher": {"model": str(models / "teacher")},
        "method": {"preset": "opd-exact", "importance": "truncated"}, "sampling": {"max_tokens": 16},
        "train": {"iterations": options.iterations, "tasks": options.tasks, "lr": 1e-5, "checkpoint_every": 10**6},
        "engine": {"overlap": overlap},
    }  # fmt: skip
    spans: list[Span] = []
    real = Rollout.run, loop.score, loop._update
    Rollout.run, loop.score, loop._update = (  # type: ignore[method-assign]
        recorded(spans, phase, function) for phase, function in zip(COLOURS, real, strict=True)
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            session = Session(parse_experiment(raw), Path(folder) / "run", resume=False, say=lambda _: None)
            student = session.load("student", session.config.student, None)
            teacher = session.config.teacher
            assert teacher is not None
            session.distil(student, TransformersScorer(session.load("teacher", teacher, None)))
            session.close()
    finally:
        Rollout.run, loop.score, loop._update = real  # type: ignore[method-assign]
    updates = sorted(end for phase, _, end in spans if phase == "update")
    spans = [(phase, max(began, updates[0]), end) for phase, began, end in spans if end > updates[0]]
    return (updates[-1] - updates[0]) / (len(updates) - 1), spans


def draw(path: Path, timelines: dict[str, list[Span]]) -> None:
    """A bar a phase, two rows a run: what plays, and what learns."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    figure, axes = plt.subplots(len(timelines), 1, figsize=(8, 3.4), sharex=True, layout="constrained")
    for axis, (title, spans) in zip(axes, timelines.items(), strict=True):
        first = min(began for _, began, _ in spans)
        for phase, began, end in spans:
            axis.barh(
                1 if phase == "rollout" else 0, end - began, left=began - first, color=COLOURS[phase], height=0.7, ec="white"
            )
        axis.set_yticks([0, 1], ["learner", "player"])
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("seconds")
    handles = [Patch(color=colour, label=phase) for phase, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="384x8", help="width and layers of the models")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.25, help="a step of the environment takes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--figure", type=Path, help="where to draw the last repeat")
    options = parser.parse_args()
    sides = {"one after the other": False, "engine.overlap": True}
    times: dict[str, list[float]] = {side: [] for side in sides}
    timelines: dict[str, list[Span]] = {}
    with tempfile.TemporaryDirectory() as name:
        tokenizer = train_tokenizer(["Say something about each number. The number is 17."], 300)
        for seed, role in enumerate(("student", "teacher")):
            torch.manual_seed(seed)
            CausalLM(tiny_model(options.size, len(tokenizer), seed, context=512), tokenizer, role).save(Path(name) / role)
        for repeat in range(options.repeats):
            for side, overlap in sides.items():
                seconds, timelines[side] = run(Path(name), overlap, options)
                times[side].append(seconds)
                print(f"repeat {repeat}: {side} {seconds:.2f} s an iteration, load {os.getloadavg()[0]:.1f}", flush=True)
    if options.figure:
        draw(options.figure, {f"{side}: {times[side][-1]:.1f} s an iteration": spans for side, spans in timelines.items()})
    ratios = [round(a / b, 3) for a, b in zip(*times.values(), strict=True)]
    about = {"benchmark": "overlap", "size": options.size, "tasks": options.tasks, "step_seconds": options.seconds}
    print(json.dumps(about | {"ratio": statistics.median(ratios), "ratios": ratios}))


if __name__ == "__main__":
    main()
