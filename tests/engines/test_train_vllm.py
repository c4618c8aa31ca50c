"""One experiment file, with vLLM by its `engine` section alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentdistill import api
from agentdistill.policies.model import CausalLM
from agentdistill.store import Store
from tests.needs import needs_vllm

needs_vllm()

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures


def test_a_student_is_trained_on_what_vllm_played(make_lm: Callable[[int], CausalLM], tmp_path: Path) -> None:
    """Its heads are of 16, as those of `tiny:` models, so they are widened for vLLM; the teacher is scored in this process."""
    for name, seed in (("student", 1), ("teacher", 2)):
        make_lm(seed).save(tmp_path / name)
    said: list[str] = []
    api.train(
        {
            "env": {"id": "lab/Guess-v0", "max_turns": 3, "max_context": 256},
            "student": {"model": str(tmp_path / "student")},
            "teacher": {"model": str(tmp_path / "teacher")},
            "method": "opd-exact",
            "sampling": {"max_tokens": 6},
            "train": {"iterations": 4, "tasks": 8, "lr": 1e-2},
            "eval": {"tasks": 4, "temperature": 1.0},
        },
        out=tmp_path / "run", say=said.append, **{"engine.kind": "vllm", "engine.cache": 0.25, "engine.transfer": "memory"},
    )  # fmt: skip
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    iterations = [each for each in records if each["kind"] == "iteration"]
    assert all(0 < each["sampler_gap"] < 2e-3 for each in iterations)  # the weights of now, by another engine's sums
    assert iterations[-1]["kl"] < 0.8 * iterations[0]["kl"]
    assert sum("starting vLLM's engine" in line for line in said) == 1
    played = Store(tmp_path / "run" / "store").read("iter-000003")
    assert {each.policy_version for each in played} == {2}
