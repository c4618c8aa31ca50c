"""`experiments/scienceworld/tiny.yaml` is a run of the real thing: one iteration on ScienceWorld, trained on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentdistill import api
from agentdistill.envs.java import needs_java
from tests.needs import missing, needs

TINY = Path(__file__).parent.parent / "experiments" / "scienceworld" / "tiny.yaml"


@pytest.fixture(autouse=True)
def _real_parts() -> None:
    needs("scienceworld", "pip install 'agentdistill[scienceworld]'")
    if what := needs_java():
        missing(f"ScienceWorld {what}")


def test_a_tiny_student_is_trained_one_iteration_on_scienceworld(tmp_path: Path) -> None:
    said: list[str] = []
    api.train(TINY, out=tmp_path / "run", say=said.append)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["kind"] == "iteration"]
    assert row["iteration"] == 1
    assert row["grad_norm"] > 0
    assert any("3 demonstrations, 3 won" in line for line in said)
    store = api.load_run(tmp_path / "run").read("iter-000001")
    assert {t.task_id.partition("/")[0] for t in store} == {"power-component"}
    assert all(turn.action_ids and turn.observation for t in store for turn in t.turns)
