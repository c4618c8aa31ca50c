"""The on-policy loop on two tiny models and a small world, without the stages around it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from agentdistill import curricula
from agentdistill.chat import Chat
from agentdistill.config import Experiment, override, parse_experiment
from agentdistill.console import Console
from agentdistill.environment import TextEnv
from agentdistill.policies.base import SamplingParams, TeacherScorer
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.pool import EnvPool
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.signals import Method
from agentdistill.store import Store
from agentdistill.training.ahead import Ahead
from agentdistill.training.check import check
from agentdistill.training.journal import Journal
from agentdistill.training.loop import Roles, distil
from agentdistill.training.panel import Panel
from agentdistill.training.stored_check import check_stored
from agentdistill.training.teachers import MovingAverage, frozen_copy
from agentdistill.training.trainer import LocalTrainer, Opener
from agentdistill.trajectory import Trajectory


def checked(about: dict[str, Any]) -> None:
    """Read an experiment, as a dry run would."""
    config = parse_experiment(about)
    check(config, Method.load(config.method), curricula.load(config.schedule))


class Even(TextEnv):
    """Say something of even length: about half of what a random student says, so that rewards differ within a group.

    A test that uses it registers it as `lab/Even-v0`.
    """

    system_prompt = "Guess the number."

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.won = 0
        return f"{seed}", {"task_id": f"even-{seed}"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        right = len(action) % 2 == 0
        self.won += right
        return ("higher" if right else "lower"), float(right), self.won == 3, False, {"success": self.won == 3}

    def expert_action(self) -> str:
        return "12"

    def plan(self) -> str:
        return "yes yes yes higher 15"


BASE: dict[str, Any] = {
    "env": {"id": "lab/Even-v0", "max_turns": 3, "max_context": 128},
    "student": {"model": "the-test's@0"},
    "teacher": {"model": "the-test's@1"},
    "reference": {"model": "initial"},
    "sampling": {"max_tokens": 2},
    "train": {"iterations": 1, "tasks": 2, "rollouts": 2, "keep_rollouts": False, "checkpoint_every": 100},
    "eval": {"tasks": 1},
}


def near(lm: CausalLM, name: str, seed: int, noise: float = 0.15) -> CausalLM:
    """Another model that mostly agrees with `lm`: its weights with noise of that share of their deviation."""
    model = copy.deepcopy(lm.model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.add_(noise * float(p.std()) * torch.randn(p.shape, generator=generator))
    return CausalLM(model, lm.tokenizer, name)


def experiment(**changes: Any) -> Experiment:
    """`BASE` with changes by dotted name."""
    return parse_experiment(override(BASE, changes))


def play_even(student: CausalLM, seeds: Iterable[int], sampling: SamplingParams) -> list[Trajectory]:
    """Episodes of the student, one a seed."""
    rollout = Rollout(EnvPool("lab/Even-v0"), TransformersSampler(student), Chat(student.tokenizer), Limits(3, 128))
    return rollout.run([Task(seed, seed, group=i) for i, seed in enumerate(seeds)], sampling, "b")


def loop(
    folder: Path,
    student: CausalLM,
    config: Experiment,
    teacher: CausalLM | Panel,
    reference: CausalLM,
    stop: Callable[[int], Any] = print,
    tasks: Sequence[int] = range(50),
    say: Callable[[str], object] = lambda _: None,
    trainer: Opener = LocalTrainer,
) -> list[dict[str, Any]]:
    """Train `student` in place by the experiment's loop; its `iteration` records.

    Args:
        teacher: another model, or several in a panel; ignored where the experiment's is the student's own weights, or stored.
        trainer: opens who trains it.
        stop: called instead of an evaluation, every `eval.every` iterations.
    """
    method, schedule = Method.load(config.method), curricula.load(config.schedule)
    check(config, method, schedule)
    stored = check_stored(config, method)
    own = {"live": student, "initial": copy.deepcopy(student), "ema": copy.deepcopy(student)}
    section = config.teacher
    scores: TeacherScorer | Panel | None = None
    if isinstance(teacher, Panel):
        scores = teacher
    elif stored is not None:
        scores = stored.scorers["teacher"]
    elif section is not None:
        scores = TransformersScorer(own.get(section.model, teacher), live=section.model == "live")
    pool = EnvPool(config.env.id, config.env.options)
    limits = Limits(config.env.max_turns, config.env.max_context)
    rollout = Rollout(
        pool, TransformersSampler(student), Chat(student.tokenizer), limits,
        privileged=section is not None and section.privileged,
        partner=TransformersSampler(teacher) if config.mixed is not None and isinstance(teacher, CausalLM) else None,
    )  # fmt: skip
    average = MovingAverage(own["ema"], section.decay or 0.9) if section is not None and section.model == "ema" else None
    ahead = None
    if config.engine.overlap:
        player = frozen_copy(student, student.name)
        ahead = Ahead(student, Rollout(pool, TransformersSampler(player), Chat(player.tokenizer), limits), player)
    roles = Roles(
        student, scores, method, schedule, rollout, tasks, average=average,
        reference=TransformersScorer(reference) if "reference" in " ".join(method.needs) else None,
        stored=stored, ahead=ahead, trainer=trainer(student, config),
    )  # fmt: skip
    journal = Journal(folder)
    try:
        distil(config, roles, journal, Store(folder / "store"), validate=stop, console=Console(say))
    finally:
        if ahead is not None:
            ahead.close()
        journal.close()
        pool.close()
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "iteration"]
