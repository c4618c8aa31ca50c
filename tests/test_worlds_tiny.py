"""`experiments/<world>/tiny.yaml` is a run of the real thing: one iteration on each environment, trained on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentdistill import api, environment
from agentdistill.registration import BUILT_IN
from tests.needs import needs_environment

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures

ROOT = Path(__file__).parent.parent / "experiments"
# How the demonstrations of either model turn out, and how a training task's name begins.
WORLDS = {
    "alfworld": ("6 demonstrations, 6 won", "valid_train/look_at_obj_in_light"),
    "arithmetic": ("8 demonstrations, 8 won", "level2/"),
    "code": ("3 demonstrations, 3 won", "mbpp/"),
    "math": ("4 demonstrations, 4 won", "gsm8k/train/"),
    "scienceworld": ("3 demonstrations, 3 won", "power-component/"),
    "textworld": ("4 demonstrations, 4 won", "cooking-"),
    "textworld_express": ("4 demonstrations, 4 won", "coin-"),
    "tools": ("4 demonstrations, 4 won", "km-"),
    "webshop": ("8 demonstrations, 7 won", "synthetic/"),
}
ALIASES = {"agentdistill/Calculator-v0"}  # the former name of Arithmetic-v0


def env_id(world: str) -> str:
    return api.experiment(ROOT / world / "tiny.yaml").env.id


def test_every_environment_has_such_a_run() -> None:
    built_in = {each.id for each in environment.catalogue() if each.source == BUILT_IN}
    assert {env_id(world) for world in WORLDS} == built_in - ALIASES


@pytest.mark.parametrize("world", WORLDS)
def test_a_tiny_student_is_trained_one_iteration(world: str, tmp_path: Path) -> None:
    demonstrations, task = WORLDS[world]
    needs_environment(env_id(world))
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
