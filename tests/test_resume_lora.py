"""A run that distils into an adapter, killed with SIGKILL and resumed, writes the same metrics and adapter, to the byte."""

from __future__ import annotations

import time
from pathlib import Path

from tests.forking import Forks
from tests.needs import needs
from tests.test_resume import Run, digest, lines

needs("peft", "pip install 'agentdistill[lora]'")

EXPERIMENT = """
name: small
env: {id: agentdistill/Arithmetic-v0, options: {level: 2, observation: compact}, max_turns: 3, max_context: 256}
student:
  model: tiny:32x1
  sft: {demonstrations: 16, steps: 10, batch: 4}
  lora: {r: 64, alpha: 128}
teacher: {model: ema, privileged: true}
method: opsd
sampling: {max_tokens: 8}
train: {iterations: 8, tasks: 3, lr: 1.0e-2, checkpoint_every: 2}
eval: {tasks: 4, temperature: 1.0}
"""


def test_a_kill_in_the_middle_changes_no_metric_and_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with Forks(tmp_path, undrawn=True) as forks:
        Run(tmp_path, whole, forks=forks).finish()
        goal = lines(whole) - 5  # in the middle of the adapter's training
        run = Run(tmp_path, killed, forks=forks)
        while lines(killed) < goal and run.running:
            time.sleep(0.005)
        run.kill()
        assert not (killed / "final").exists()
        Run(tmp_path, killed, forks=forks).finish()
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    name = "final/adapter_model.safetensors"
    assert digest(killed / name) == digest(whole / name)
