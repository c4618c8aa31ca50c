"""The command line under torchrun: two ranks, one of them killed, and one process that goes on with what they left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from agentdistill import api
from agentdistill.policies.model import CausalLM
from tests.forking import ENVIRONMENT, ROOT

ITERATIONS = 12
WORLD = "import agentdistill as ad\nfrom tests.conftest import GuessEnv\nad.register('lab/Guesses-v0', GuessEnv)\n"


def iterations(run: Path) -> list[dict[str, Any]]:
    if not (run / "metrics.jsonl").exists():
        return []
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]
    return [record for record in records if record["kind"] == "iteration"]


def ranks_of(torchrun: subprocess.Popen[bytes]) -> dict[int, psutil.Process]:
    return {int(child.environ()["RANK"]): child for child in psutil.Process(torchrun.pid).children()}


def test_a_run_of_two_ranks_one_of_which_is_killed_goes_on_in_one_process(
    make_lm: Callable[[int], CausalLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "guesses.py").write_text(WORLD)
    for name, seed in {"student": 1, "teacher": 2}.items():
        make_lm(seed).save(tmp_path / name)
    about = {
        "env": {"id": "lab/Guesses-v0", "max_turns": 4, "max_context": 128, "module": "guesses.py"},
        "student": {"model": str(tmp_path / "student")}, "teacher": {"model": str(tmp_path / "teacher")},
        "method": "opd-exact", "sampling": {"max_tokens": 4}, "eval": {"tasks": 2},
        "train": {"iterations": ITERATIONS, "tasks": 4, "lr": 1e-4, "checkpoint_every": 2},
    }  # fmt: skip
    experiment, run = tmp_path / "x.yaml", tmp_path / "run"
    experiment.write_text(yaml.safe_dump(about))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "agentdistill"]
    with (tmp_path / "log").open("wb") as log:
        torchrun = subprocess.Popen(
            [*words, "train", str(experiment), "--out", str(run)], env=ENVIRONMENT, cwd=ROOT, stdout=log, stderr=log
        )
    try:
        while len(iterations(run)) < 3:
            assert torchrun.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
        ranks = ranks_of(torchrun)
        os.kill(ranks[1].pid, signal.SIGKILL)
        assert torchrun.wait(timeout=60) == 1
    finally:
        torchrun.kill()
    assert not any(rank.is_running() for rank in ranks.values())
    said = (tmp_path / "log").read_text()
    assert "trainer rank 1 is lost" in said  # whoever noticed first: rank 0, or torchrun, which stops it
    assert said.count("iteration 1/12") == 1
    assert "this is a bug" not in said
    monkeypatch.setattr("agentdistill.report.report", lambda runs: None)
    before = iterations(run)
    api.train(experiment, out=run, resume=True, say=lambda _: None)
    assert [record["iteration"] for record in iterations(run)] == list(range(1, ITERATIONS + 1))
    assert iterations(run)[:2] == before[:2]
    assert (run / "final" / "model.safetensors").is_file()
