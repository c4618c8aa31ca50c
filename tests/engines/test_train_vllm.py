"""One experiment file, with vLLM by its `engine` section alone."""

from __future__ import annotations

import json
from pathlib import Path

from agentdistill import api
from tests.needs import needs_vllm

needs_vllm()

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "tiny.yaml"
SHORT = {
    "student.sft.demonstrations": 200, "student.sft.steps": 60, "teacher.sft.demonstrations": 200, "teacher.sft.steps": 200,
    "train.iterations": 4, "train.tasks": 8, "train.lr": 3e-3, "eval.tasks": 8, "sampling.max_tokens": 24,
}  # fmt: skip


def test_a_tiny_student_is_trained_on_what_vllm_played(tmp_path: Path) -> None:
    said: list[str] = []
    api.train(EXPERIMENT, out=tmp_path / "run", say=said.append, **SHORT, **{"engine.kind": "vllm", "engine.cache": 0.25})
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    iterations = [each for each in records if each["kind"] == "iteration"]
    assert len(iterations) == 4
    assert all(0 < each["sampler_gap"] < 2e-3 for each in iterations)  # the new weights are there, and another engine's sums
    assert iterations[-1]["kl"] < 0.7 * iterations[0]["kl"]
    assert sum("starting vLLM's engine" in line for line in said) == 1
