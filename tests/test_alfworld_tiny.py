"""`experiments/alfworld/tiny.yaml` is a run of the real thing: one iteration on ALFWorld, trained on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentdistill import api
from tests.needs import needs, needs_data

TINY = Path(__file__).parent.parent / "experiments" / "alfworld" / "tiny.yaml"


@pytest.fixture(autouse=True)
def _real_parts() -> None:
    needs("alfworld", "pip install 'agentdistill[alfworld]'")
    needs("fast_downward", "pip install 'agentdistill[alfworld]'")
    needs_data("alfworld")


def test_a_tiny_student_is_trained_one_iteration_on_alfworld(tmp_path: Path) -> None:
    said: list[str] = []
    api.train(TINY, out=tmp_path / "run", say=said.append)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["kind"] == "iteration"]
    assert row["iteration"] == 1
    assert row["grad_norm"] > 0
    assert any("6 demonstrations, 6 won" in line for line in said)
    store = api.load_run(tmp_path / "run").read("iter-000001")
    assert {t.task_id.partition("-")[0] for t in store} == {"valid_train/look_at_obj_in_light"}
    assert all(turn.action_ids and turn.observation for t in store for turn in t.turns)
