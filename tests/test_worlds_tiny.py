"""`experiments/<world>/tiny.yaml` is a run of the real thing: one iteration on each text world, trained on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentdistill import api
from tests.needs import needs, needs_alfworld, needs_scienceworld, needs_textworld_express, needs_webshop

ROOT = Path(__file__).parent.parent / "experiments"
WORLDS = {
    "alfworld": (needs_alfworld, "6 demonstrations, 6 won", "valid_train/look_at_obj_in_light"),
    "scienceworld": (needs_scienceworld, "3 demonstrations, 3 won", "power-component/"),
    "textworld": (lambda: needs("textworld"), "4 demonstrations, 4 won", "cooking-"),
    "textworld_express": (needs_textworld_express, "4 demonstrations, 4 won", "coin-"),
    "webshop": (needs_webshop, "8 demonstrations, 7 won", "synthetic/"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_a_tiny_student_is_trained_one_iteration(world: str, tmp_path: Path) -> None:
    require, demonstrations, task = WORLDS[world]
    require()
    said: list[str] = []
    run = api.train(ROOT / world / "tiny.yaml", out=tmp_path / "run", say=said.append)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["kind"] == "iteration"]
    assert row["iteration"] == 1
    assert row["grad_norm"] > 0
    assert any(demonstrations in line for line in said)
    assert run.summary["after"]["tasks"] > 0
    store = api.load_run(run.folder).read("iter-000001")
    assert all(t.task_id.startswith(task) for t in store)
    assert all(turn.action_ids and turn.observation for t in store for turn in t.turns)
