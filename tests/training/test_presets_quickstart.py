"""Each preset on the main job's own pair: a few iterations bring the quickstart's student nearer to the quickstart's teacher.

`.ci/run` makes that run before the tests. What is measured is the exact reverse KL on tokens that the untrained student
sampled on validation games, the same for all presets. All train with one small batch and one learning rate.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentdistill.chat import Chat
from agentdistill.config import Experiment, override, parse_experiment
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.load import load_model
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.pool import EnvPool
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.signals import PRESETS, Method
from agentdistill.signals.method import preset_schedule
from agentdistill.store import Store
from agentdistill.training.check import first_seeds
from agentdistill.training.score import score, trainable
from agentdistill.trajectory import Trajectory
from tests.needs import needs, needs_quickstart
from tests.training.looped import loop

SHORT = {
    "train": {
        "iterations": 5, "tasks": 8, "rollouts": 2, "lr": 5e-4, "lr_schedule": "constant", "keep_rollouts": False,
        "checkpoint_every": 100,
    },
    "reference.model": "initial",
}  # fmt: skip
SAMPLED = {"train.iterations": 10}  # of a method whose gradient is that of sampled tokens alone, which is noisier
HELD_OUT = 12
FALLEN = 0.95

TERM = "beside advantages of unit size the reward leads; what its distillation term does shows alone"
FIRST = "every game here begins with the same command, where the two agree, so all later steps weigh nothing after it; "
ALONE: dict[str, tuple[dict[str, Any], str]] = {
    "sod": ({"rl": "none", "step_weight": {"reference": "first-above-floor"}}, FIRST + TERM),
    "sod-exact": ({"rl": "none", "step_weight": {"reference": "first-above-floor"}}, FIRST + TERM),
    "kdrl": ({"rl": "none", "kd_coef": 1.0}, "its coefficient is 5e-3; " + TERM),
    "kdrl-masked": ({"rl": "none", "kd_coef": 1.0}, "as kdrl; the tokens of wrong episodes only"),
}
"""What is changed of a preset before the KL is looked at, and why; its reward term is looked at as it is."""

NO_DISTANCE = {
    "grpo": "there is no teacher in it",
    "dr-grpo": "there is no teacher in it",
    "rloo": "there is no teacher in it",
    "rlad": "the teacher only bends how far the reward may move the student",
}
"""Presets that nothing draws to a teacher: only their reward term is looked at."""

IMITATES = {
    "dasd": "it learns what the teacher says from where the student left off, so what falls is KL(teacher‖student) there"
}
"""Presets whose KL is the other one."""

BESIDE: dict[str, dict[str, Any]] = {
    "dckd": {"train.iterations": 10, "train.tasks": 4, "train.rollouts": 4},  # only tasks that were won and lost say something
    "dasd": {"mixed": {"most": 8}},
    "tcod-f2b": {
        "schedule": {"kind": "tcod-f2b", "start": 8, "every": 1},
        "train.iterations": 12,
    },  # at depth 1 all games begin alike, and the two agree
    # For its first 20 iterations or so it learns after the expert's moves, and not where it is looked at.
    "tcod-b2f": {"schedule": {"kind": "tcod-b2f", "every": 1}, "train.iterations": 60, "eval.every": 0},
    **dict.fromkeys(("kdrl", "kdrl-masked"), SAMPLED),  # a divergence, but of sampled tokens
    "logit-std": {"train.lr": 1e-3},  # its temperatures leave a gradient that is several times smaller than others'
}
"""What an experiment has beside its method, where a preset needs it to have anything to learn in so few iterations."""


@dataclass(frozen=True)
class Pair:
    """The main job's student and teacher after their imitation, its experiment, and held-out episodes of the student."""

    run: Path
    raw: dict[str, Any]
    student: CausalLM
    teacher: CausalLM
    tasks: list[int]
    held_out: list[Trajectory]
    shown: list[Trajectory]

    def apart(self, student: CausalLM, episodes: list[Trajectory] | None = None) -> float:
        """Mean exact KL(student‖teacher) in nats on the student's tokens of episodes, the held-out ones by default."""
        table = score(student, TransformersScorer(self.teacher), episodes or self.held_out, 8192).table
        return float(table["rkl"][table.is_action].mean())

    def unlike(self, student: CausalLM) -> float:
        """Mean `log T − log π` in nats of what the teacher said after the student's first turns: of KL(teacher‖student)."""
        table = score(student, TransformersScorer(self.teacher), self.shown, 8192, authors=("teacher",)).table
        return float((table["teacher"] - table["logprob"])[table.is_action].mean())

    def experiment(self, method: Any, **beside: Any) -> Experiment:
        """The main job's, made short."""
        models = {role: {"model": str(self.run / role), "sft": None} for role in ("student", "teacher")}
        about = {"method": method, "schedule": preset_schedule(method) or "none", **beside}
        return parse_experiment(override(self.raw, {**SHORT, **models, **about}))

    def train(self, folder: Path, config: Experiment) -> tuple[CausalLM, list[dict[str, Any]]]:
        """A copy of the student, trained, and what its iterations recorded."""
        student = copy.deepcopy(self.student)
        return student, loop(folder, student, config, self.teacher, copy.deepcopy(self.student), tasks=self.tasks)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    needs("textworld")
    run = needs_quickstart()
    raw = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
    student, teacher = load_model(str(run / "student")), load_model(str(run / "teacher"))
    config = parse_experiment(raw)
    pool = EnvPool(config.env.id, config.env.options)
    tasks, held = (first_seeds(pool.prototype(), config.env.id, split, n) for split, n in (("train", 64), ("valid", HELD_OUT)))
    limits = Limits(config.env.max_turns, min(config.env.max_context, student.context))
    said = SamplingParams(max_tokens=config.sampling.max_tokens)

    def play(**task: Any) -> list[Trajectory]:
        rollout = Rollout(
            pool, TransformersSampler(student), Chat(student.tokenizer), limits, partner=TransformersSampler(teacher)
        )
        return rollout.run([Task(seed, seed, group=i, **task) for i, seed in enumerate(held)], said, "held-out")

    yield Pair(run, raw, student, teacher, tasks, trainable(play()), trainable(play(own_turns=4), ("teacher",)))
    pool.close()


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - set(NO_DISTANCE)))
def test_a_preset_brings_the_student_nearer_to_its_teacher(preset: str, pair: Pair, tmp_path: Path) -> None:
    change, _ = ALONE.get(preset, ({}, ""))
    beside = ({} if Method.load(preset).exact else SAMPLED) | BESIDE.get(preset, {})
    config = pair.experiment({"preset": preset, **change}, **beside)
    student, _ = pair.train(tmp_path, config)
    measure = pair.unlike if preset in IMITATES else pair.apart
    before, after = measure(pair.student), measure(student)
    print(f"{preset}: {before:.3f} -> {after:.3f} nats, {after / before:.3f}")
    assert after < FALLEN * before


@pytest.mark.parametrize("preset", sorted(name for name in PRESETS if Method.load(name).rewarded))
def test_a_presets_reward_term_makes_better_episodes_likelier_than_worse_ones(preset: str, pair: Pair, tmp_path: Path) -> None:
    config = pair.experiment(preset, **{"train.iterations": 1, "train.keep_rollouts": True})
    student, _ = pair.train(tmp_path, config)
    played = Store(tmp_path / "store").read("iter-000001")
    before, after = (score(each, None, played, 8192).table for each in (pair.student, student))
    advantage = Method.load("grpo").apply(before).advantage
    assert advantage.any(), "no two rollouts of a task differ in reward"
    gain = float((advantage * (after["logprob"] - before["logprob"]))[before.is_action].sum())
    print(f"{preset}: {gain:.3f}")
    assert gain > 0


def test_lightning_learns_from_the_runs_own_stored_scores_without_the_teacher(pair: Pair, tmp_path: Path) -> None:
    """The first iteration's episodes were played by the untrained student, and the teacher's scores stand beside them.

    What is looked at is what the method is to do, and not the KL: on 32 episodes that are used again and again, the two part.
    """
    stored = {"store": str(pair.run), "scorer": pair.raw["teacher"]["model"], "batches": ["iter-000001"]}
    config = pair.experiment("lightning", rollouts=stored, teacher=None, **{"train.tasks": 32})
    student = copy.deepcopy(pair.student)
    records = loop(tmp_path, student, config, pair.student, pair.student)
    assert records[0]["drift"] == pytest.approx(0, abs=1e-5)
    episodes = trainable(Store(pair.run / "store").read("iter-000001"))
    before, after = (score(each, TransformersScorer(pair.teacher), episodes, 8192).table for each in (pair.student, student))
    advantage = (before["teacher"] - before["logprob"])[before.is_action]
    gain = float((advantage * (after["logprob"] - before["logprob"])[before.is_action]).mean())
    print(f"stored: {gain:.4f} of {(advantage**2).mean():.4f} nats²")
    assert gain > 0
