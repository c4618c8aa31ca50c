"""A run killed with SIGKILL at random moments and resumed writes the same metrics, to the byte, and the same weights."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentdistill.store import Store
from tests.forking import ROOT, Forks

EXPERIMENT = """
name: small
env: {id: agentdistill/TextWorld-v0, max_turns: 10, max_context: 256}
student:
  model: tiny:32x2
  sft: {demonstrations: 32, steps: 60, batch: 8, checkpoint_every: 7, eval_every: 20, eval_tasks: 8}
teacher:
  model: tiny:64x2
  sft: {demonstrations: 32, steps: 60, batch: 8, checkpoint_every: 7}
method: {preset: sod, clip_high: 0.2}
schedule: {kind: adaptive, start: 2, threshold: 9.0, window: 2}
sampling: {max_tokens: 12}
train: {iterations: 24, tasks: 4, rollouts: 2, minibatches: 2, lr: 1.0e-3, checkpoint_every: 3}
eval: {tasks: 16, every: 4, every_tasks: 8, temperature: 1.0}
"""

KILLS = int(os.environ.get("AGENTDISTILL_KILLS", "5"))  # 20 by hand

# For what does not depend on when it happens: a few steps of each stage.
BRIEF = ["--student.sft.steps", "20", "--teacher.sft.steps", "20", "--train.iterations", "4", "--eval.tasks", "8"]


class Run:
    """`agentdistill train small.yaml --resume`, the file in `folder`, into `out`: begun, and perhaps killed.

    In a fork of a process that has imported everything, which is killed as any other; without `forks` in a new interpreter, as
    a user has it, for what depends on how one begins.
    """

    def __init__(self, folder: Path, out: Path, *options: str, forks: Forks | None = None, threads: int = 1) -> None:
        self.log, self._forks, self._process = folder / f"{out.name}.log", forks, None
        words = ["train", str(folder / "small.yaml"), "--out", str(out), "--resume", *options]
        if forks is not None:
            self.pid = forks.start(words, str(self.log))
            return
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "agentdistill.cli", *words]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.pid = self._process.pid

    @property
    def running(self) -> bool:
        return self._forks.busy if self._forks is not None else self._process.poll() is None

    def stop(self, number: int) -> None:
        assert self.running, self.log.read_text()
        os.kill(self.pid, number)

    def end(self) -> int:
        return self._forks.wait(300) if self._forks is not None else self._process.wait(timeout=300)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)
        assert self.end() == -signal.SIGKILL

    def finish(self) -> str:
        """What it said."""
        code, said = self.end(), self.log.read_text()
        assert code == 0, said
        return said


def lines(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def finished(out: Path) -> set[str]:
    path = out / "progress.json"
    return set(json.loads(path.read_text())["done"]) if path.exists() else set()


def scores(out: Path) -> list[Any]:
    """Every stored number that a model gave, bit for bit: log-probs of sampler and teacher by batch, episode and turn."""
    store = Store(out / "store")
    return [
        (batch, t.id, turn.action_ids, turn.logprobs, turn.logprobs_t1)
        for batch in store.batches()
        for t in store.read(batch)
        for turn in t.turns
    ] + [
        (batch, t.id, name, scored.logprobs.tobytes(), None if scored.entropy is None else scored.entropy.tobytes())
        for batch in store.batches()
        for t in store.read(batch)
        for name, scored in t.scores.items()
    ]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks(ROOT, ["textworld"], undrawn=True) as process:
        yield process


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    (folder / "small.yaml").write_text(EXPERIMENT)
    Run(folder, folder / "whole", forks=forks).finish()
    return folder


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    folder = tmp_path_factory.mktemp("brief")
    (folder / "small.yaml").write_text(EXPERIMENT)
    Run(folder, folder / "whole", *BRIEF, forks=forks).finish()
    return folder / "whole"


def test_kills_at_random_moments_change_nothing(whole: Path, forks: Forks) -> None:
    out, rng = whole / "killed", random.Random(0)
    total = lines(whole / "whole")
    goals = sorted(rng.sample(range(2, total - 1), KILLS))  # kill once so many lines are written, and a random moment later
    for goal in goals:
        run = Run(whole, out, forks=forks)
        deadline = time.monotonic() + 120
        while lines(out) < goal and run.running and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        run.kill()
    Run(whole, out, forks=forks).finish()
    assert (out / "metrics.jsonl").read_bytes() == (whole / "whole" / "metrics.jsonl").read_bytes()
    for name in ("teacher", "student", "final"):
        assert digest(out / name / "model.safetensors") == digest(whole / "whole" / name / "model.safetensors")
    assert scores(out) == scores(whole / "whole")  # no trajectory is lost or doubled


@pytest.mark.parametrize(("stage", "threads"), [("sft-student", 1), ("eval-before", 2)])
def test_a_kill_right_after_a_stage_changes_no_metric_weight_or_stored_score(
    brief: Path, forks: Forks, stage: str, threads: int
) -> None:
    """The next stage goes on from models that were read from disk; also where the machine would take more threads."""
    out, expected = brief.parent / f"after-{stage}", scores(brief)
    run = Run(brief.parent, out, *BRIEF, forks=forks)
    while stage not in finished(out) and run.running:
        time.sleep(0.002)
    run.kill()
    assert "train" not in finished(out)
    log = Run(brief.parent, out, *BRIEF, forks=forks if threads == 1 else None, threads=threads).finish()
    assert ("1 threads, as when the run began (here it would be 2)" in log) == (threads == 2)
    assert (out / "metrics.jsonl").read_bytes() == (brief / "metrics.jsonl").read_bytes()
    assert digest(out / "final" / "model.safetensors") == digest(brief / "final" / "model.safetensors")
    assert len(expected) > 200
    assert scores(out) == expected


def test_a_finished_run_resumed_does_nothing_again_and_says_the_same(whole: Path, forks: Forks) -> None:
    before = (whole / "whole" / "metrics.jsonl").read_bytes()
    Run(whole, whole / "whole", forks=forks).finish()
    assert (whole / "whole" / "metrics.jsonl").read_bytes() == before


def test_ctrl_c_stops_with_one_sentence_and_the_run_goes_on_to_the_same_numbers(brief: Path, forks: Forks) -> None:
    out = brief.parent / "interrupted"
    run = Run(brief.parent, out, *BRIEF)
    while lines(out) < lines(brief) - 3 and run.running:  # in the middle of training
        time.sleep(0.01)
    run.stop(signal.SIGINT)
    assert run.end() == 130
    log = run.log.read_text()
    assert "--resume" in log
    assert "Traceback" not in log
    Run(brief.parent, out, *BRIEF, forks=forks).finish()
    assert (out / "metrics.jsonl").read_bytes() == (brief / "metrics.jsonl").read_bytes()
