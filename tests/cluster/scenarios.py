"""What a trainer is put through, in one process or by ranks: each gives what the two must agree on."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agentdistill import environment
from agentdistill.config import Experiment
from agentdistill.errors import UserError
from agentdistill.policies.adapter import attach
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.policies.tiny import train_tokenizer
from agentdistill.signals import Method, Streams
from agentdistill.training.score import Scored, score
from agentdistill.training.trainer import Opener, Trainer
from agentdistill.trajectory import StopReason, Trajectory, Turn
from tests.conftest import spread_model
from tests.heap import faults
from tests.training.looped import Even, experiment, loop, near, play_even

Result = dict[str, Any]
LOOPS: dict[str, dict[str, Any]] = {
    "exact": {"method": "opd-exact"},
    "sampled": {"method": "sod"},
    "clipped": {
        "method": {"preset": "kdrl", "clip_low": 0.01, "clip_high": 0.01}, "train.minibatches": 2, "train.epochs": 2,
    },
    "live": {"method": "opsd", "teacher": {"model": "live", "privileged": True}},
    "average": {"method": "opsd", "teacher": {"model": "ema", "privileged": True}},
    "overlap": {"method": "opd", "engine.overlap": True},
    "recompute": {"method": "opd-exact", "train.activation_checkpointing": True},
}  # fmt: skip


def model(seed: int) -> CausalLM:
    """A tiny model with tied embeddings, of an odd vocabulary, so that no two ranks share it evenly."""
    return spread_model(train_tokenizer(["higher lower yes 0 to 15 Guess the number.\n"] * 3, 279), seed)


def looped(name: str, open_: Opener, folder: Path, iterations: int = 5) -> Result:
    """The records of a loop of `LOOPS`, and the weights it ends with."""
    environment.register("lab/Even-v0", Even)
    try:
        every = {"train.iterations": iterations, "train.tasks": 3, "train.token_budget": 100, "train.lr": 1e-3}
        student = model(0)
        about = experiment(**every, **{"train.checkpoint_every": 2}, **LOOPS[name])
        records = loop(folder, student, about, near(student, "teacher", 1), near(student, "reference", 2), trainer=open_)
        return {"records": records, "weights": weights(student)}
    finally:
        environment.unregister("lab/Even-v0")


def weights(lm: CausalLM) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in lm.model.named_parameters()}


@dataclass
class Bench:
    """A scored batch, a student that has moved on since it played, and its trainer, with a micro-batch a segment."""

    method: Method
    student: CausalLM
    scored: Scored
    streams: Streams
    trainer: Trainer

    def accumulate(self, segments: list[int], streams: Streams | None = None) -> float:
        given = streams or self.streams
        return self.trainer.accumulate(self.method, self.scored, given, given.coef, segments, "step 7").loss

    def poisoned(self, segment: int, value: float) -> Streams:
        advantage = self.streams.advantage.copy()
        advantage[self.scored.sequences[segment].rows[0]] = value
        return replace(self.streams, advantage=advantage)


def bench(open_: Opener, method: str = "opd", lora: bool = False) -> Bench:
    environment.register("lab/Even-v0", Even)
    try:
        student = model(0)
        if lora:
            student = attach(student, r=2, alpha=4, targets="all-linear", seed=0, base="x")
        rows = play_even(student, range(5), SamplingParams(max_tokens=3))
        teacher = TransformersScorer(near(student, "teacher", 1) if not lora else model(1))
        loaded = Method.load(method)
        scored = score(student, teacher, rows, 4096, measures=loaded.measures, later=True)
        config: Experiment = experiment(**{"method": method, "train.token_budget": 1, "train.lr": 1e-3})
        with torch.no_grad():
            generator = torch.Generator().manual_seed(5)
            for p in student.model.parameters():
                p.add_(0.02 * torch.randn(p.shape, generator=generator))
        before = copy.copy(scored.table)
        streams = loaded.apply(before)
        return Bench(loaded, student, scored, streams, open_(student, config))
    finally:
        environment.unregister("lab/Even-v0")


def uneven(open_: Opener, folder: Path) -> Result:
    """Losses, gradients and columns where ranks have as many micro-batches, one more, and none at all."""
    made = bench(open_, "opd-exact")
    out: Result = {}
    for name, segments in {"even": [0, 1, 2, 3], "odd": [4, 0, 2], "one": [3]}.items():
        out[name] = (made.accumulate(segments), made.trainer.difference(), made.trainer.set_aside())
    made.accumulate([0, 1])
    out["less"] = made.trainer.difference()  # than the last one that was set aside
    assert made.scored.student is not None
    out["columns"] = made.scored.student.filled
    out["norm"] = made.trainer.step(1e-3, "step 7")
    out["after"] = made.accumulate([0, 1, 2, 3, 4])
    return out | {"weights": weights(made.student)}


def alike(open_: Opener, folder: Path) -> Result:
    """Three sequences of a long common beginning, so that one rank has two of them in a micro-batch and the other has one; as
    rows of a beginning and what follows it, with layers computed again, and padded."""
    student, method = model(0), Method.load("opd-exact")
    beginning, zeros = [5 + i % 40 for i in range(160)], [0.0] * 6
    rows = [
        Trajectory(f"e{k}", "x", k, "x", [], [Turn(beginning, [50 + k + i for i in range(6)], "", "", zeros, zeros)],
                   StopReason.MAX_TURNS)
        for k in range(3)
    ]  # fmt: skip
    scored = score(student, TransformersScorer(near(student, "teacher", 1)), rows, 4096)
    streams, out = method.apply(scored.table), Result()
    for way in ("plain", "recompute", "padded"):
        student.packed = way != "padded"
        config = experiment(**{"method": "opd-exact", "train.activation_checkpointing": way == "recompute"})
        trainer = open_(student, config)
        loss = trainer.accumulate(method, scored, streams, streams.coef, range(3), "step 7").loss
        out[way] = (loss, trainer.difference(), trainer.set_aside())
        trainer.close()
    return out


def adapter(open_: Opener, folder: Path) -> Result:
    """An adapter's training, and its checkpoint."""
    made = bench(open_, "opd-exact", lora=True)
    out: Result = {"losses": [], "norms": []}
    for _ in range(3):
        out["losses"].append(made.accumulate([0, 1, 2, 3, 4]))
        out["norms"].append(made.trainer.step(1e-3, "step 7"))
    made.trainer.save(folder)
    return out | {"weights": weights(made.student), "own": {k: v.detach().clone() for k, v in made.student.own().items()}}


def refused(open_: Opener, folder: Path) -> Result:
    """A loss that is no number, in one segment only, and a gradient that overflows. Both leave things as they were."""
    made = bench(open_)
    before = weights(made.student)
    out: Result = {}

    def said(act: Callable[[], object]) -> str:
        try:
            act()
        except UserError as error:
            return str(error)
        return ""

    shortest = min(range(5), key=lambda i: len(made.scored.sequences[i].ids))
    out["loss"] = said(lambda: made.accumulate([0, 1, 2, 3, 4], made.poisoned(shortest, np.nan)))
    out["nothing"] = made.trainer.difference()
    made.accumulate([0, 1, 2, 3, 4], made.poisoned(shortest, 1e30))
    out["gradient"] = said(lambda: made.trainer.step(1e-3, "step 7"))
    out["cleared"] = made.trainer.difference()
    out["kept"] = all(torch.equal(before[name], tensor) for name, tensor in weights(made.student).items())
    out["next"] = (made.accumulate([0, 1, 2, 3, 4]), made.trainer.step(1e-3, "step 7"))
    return out


def absent(open_: Opener, folder: Path) -> Result:
    """A module of the experiment that cannot be imported on rank 1; then none."""
    (folder / "world.py").write_text("import os\nif os.environ['RANK'] == '1':\n    raise OSError('not on this machine')\n")
    student = model(0)
    try:
        open_(student, experiment(**{"env.module": str(folder / "world.py")}))
    except UserError as error:
        said = str(error)
    return {"said": said, "next": bench(open_).accumulate([0, 1])}


def unwritten(open_: Opener, folder: Path) -> Result:
    """A checkpoint that cannot be written, and another folder that can."""
    made = bench(open_)
    made.accumulate([0, 1])
    made.trainer.step(1e-3, "step 7")
    (folder / "file").write_text("")
    try:
        made.trainer.save(folder / "file")
    except (OSError, RuntimeError) as error:
        said = type(error).__name__
    (folder / "good").mkdir()
    made.trainer.save(folder / "good")
    return {"said": said, "files": sorted(p.name for p in (folder / "good").rglob("*"))}


def kept(open_: Opener, folder: Path) -> Result:
    """What rank 0 is given again of the memory that it frees."""
    bench(open_)
    return {"faults": faults()}


def endless(open_: Opener, folder: Path) -> Result:
    """Steps without end; each is told in a file."""
    made = bench(open_)
    step = 0
    while True:
        made.accumulate([0, 1, 2, 3])
        made.trainer.step(1e-5, "step 7")
        step += 1
        (folder / "steps").write_text(str(step))


def away(open_: Opener, folder: Path) -> Result:
    """A step, and then rank 0 is about something else for good."""
    made = bench(open_)
    made.accumulate([0, 1, 2, 3])
    (folder / "steps").write_text("2")
    while True:
        time.sleep(1)


SCENARIOS: dict[str, Callable[[Opener, Path], Result]] = {
    each.__name__: each for each in (uneven, alike, adapter, refused, absent, unwritten, kept, endless, away)
}


def play(name: str, open_: Opener, folder: Path) -> Result:
    """A scenario by its name; a loop's may have a number of iterations behind a colon."""
    kind, _, count = name.partition(":")
    if kind in LOOPS:
        return looped(kind, open_, folder, int(count or 5))
    return SCENARIOS[kind](open_, folder)
