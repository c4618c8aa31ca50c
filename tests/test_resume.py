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
from pathlib import Path
from typing import Any

import pytest

from agentdistill.store import Store

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


def start(folder: Path, out: Path, *options: str, threads: int = 1) -> subprocess.Popen[bytes]:
    words = ["train", str(folder / "small.yaml"), "--out", str(out), "--resume", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    log = (folder / f"{out.name}.log").open("ab")
    return subprocess.Popen([sys.executable, "-m", "agentdistill.cli", *words], stdout=log, stderr=log, env=environment)


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
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    (folder / "small.yaml").write_text(EXPERIMENT)
    assert start(folder, folder / "whole").wait(timeout=300) == 0, (folder / "whole.log").read_text()
    return folder


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brief")
    (folder / "small.yaml").write_text(EXPERIMENT)
    assert start(folder, folder / "whole", *BRIEF).wait(timeout=300) == 0, (folder / "whole.log").read_text()
    return folder / "whole"


def test_kills_at_random_moments_change_nothing(whole: Path) -> None:
    out, rng = whole / "killed", random.Random(0)
    total = lines(whole / "whole")
    goals = sorted(rng.sample(range(2, total - 1), KILLS))  # kill once so many lines are written, and a random moment later
    for goal in goals:
        process = start(whole, out)
        deadline = time.monotonic() + 120
        while lines(out) < goal and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        assert process.poll() is None, (whole / "killed.log").read_text()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(whole, out).wait(timeout=300) == 0, (whole / "killed.log").read_text()
    assert (out / "metrics.jsonl").read_bytes() == (whole / "whole" / "metrics.jsonl").read_bytes()
    for name in ("teacher", "student", "final"):
        assert digest(out / name / "model.safetensors") == digest(whole / "whole" / name / "model.safetensors")
    assert scores(out) == scores(whole / "whole")  # no trajectory is lost or doubled


@pytest.mark.parametrize(("stage", "threads"), [("sft-student", 1), ("eval-before", 2)])
def test_a_kill_right_after_a_stage_changes_no_metric_weight_or_stored_score(brief: Path, stage: str, threads: int) -> None:
    """The next stage goes on from models that were read from disk; also where the machine would take more threads."""
    out, expected = brief.parent / f"after-{stage}", scores(brief)
    process = start(brief.parent, out, *BRIEF)
    while stage not in finished(out) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "train" not in finished(out)
    code, log = start(brief.parent, out, *BRIEF, threads=threads).wait(timeout=300), out.with_suffix(".log").read_text()
    assert code == 0, log
    assert ("1 threads, as when the run began (here it would be 2)" in log) == (threads == 2)
    assert (out / "metrics.jsonl").read_bytes() == (brief / "metrics.jsonl").read_bytes()
    assert digest(out / "final" / "model.safetensors") == digest(brief / "final" / "model.safetensors")
    assert len(expected) > 200
    assert scores(out) == expected


def test_a_finished_run_resumed_does_nothing_again_and_says_the_same(whole: Path) -> None:
    before = (whole / "whole" / "metrics.jsonl").read_bytes()
    assert start(whole, whole / "whole").wait(timeout=120) == 0
    assert (whole / "whole" / "metrics.jsonl").read_bytes() == before


def test_ctrl_c_stops_with_one_sentence_and_the_run_goes_on_to_the_same_numbers(whole: Path) -> None:
    out = whole / "interrupted"
    process = start(whole, out)
    while lines(out) < 15 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    log = (whole / "interrupted.log").read_text()
    assert "--resume" in log
    assert "Traceback" not in log
    assert start(whole, out).wait(timeout=300) == 0
    assert (out / "metrics.jsonl").read_bytes() == (whole / "whole" / "metrics.jsonl").read_bytes()
