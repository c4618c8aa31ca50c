"""Trainer ranks as actors: the numbers of one process, also when a rank is killed in the middle of the run."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentdistill import api
from agentdistill.policies.model import CausalLM
from agentdistill.store import Store
from tests.needs import needs

needs("ray", "pip install 'agentdistill[ray]'")

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures

ITERATIONS, TASKS = 4, 6


def test_a_killed_rank_costs_no_more_than_the_way_from_the_last_checkpoint(
    cluster: Any, make_lm: Callable[[int], CausalLM], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentdistill.cluster.engine import RayEngine

    for name, seed in (("student", 1), ("teacher", 2)):
        make_lm(seed).save(tmp_path / name)
    engines: list[Any] = []
    monkeypatch.setattr(RayEngine, "__init__", recorded(engines, RayEngine.__init__))
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        if "iteration 3/" in line and len(engines) == 1:
            import ray

            actor = engines[0]._ranks._actors[1]
            os.kill(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)

    experiment = {
        "env": {"id": "lab/Guess-v0", "max_turns": 3, "max_context": 256},
        "student": {"model": str(tmp_path / "student")},
        "teacher": {"model": str(tmp_path / "teacher")},
        "method": "opd-exact",
        "sampling": {"max_tokens": 6},
        "train": {"iterations": ITERATIONS, "tasks": TASKS, "lr": 1e-3, "checkpoint_every": 2},
        "eval": {"tasks": 4, "temperature": 1.0},
    }
    sizes = {"samplers": 0, "teachers": 0, "trainers": 2, "cpus_per_trainer": 0.25, "wait": 240}
    api.train(experiment, out=tmp_path / "ranks", say=hear, **{"engine.kind": "ray", "engine.ray": sizes})
    api.train(experiment, out=tmp_path / "alone", say=lambda _: None)
    ours, theirs = iterations(tmp_path / "ranks"), iterations(tmp_path / "alone")
    assert [each["iteration"] for each in ours] == list(range(1, ITERATIONS + 1))
    for one, two in zip(ours, theirs, strict=True):
        assert math.isclose(one["loss"], two["loss"], rel_tol=1e-4)
        assert one["stop_reasons"] == two["stop_reasons"]
    for i in range(1, ITERATIONS + 1):
        played = Store(tmp_path / "ranks" / "store").read(f"iter-{i:06d}")
        assert [each.id for each in played] == [f"iter-{i:06d}/{k:04d}" for k in range(TASKS)]
    (line,) = [each for each in said if "was lost" in each]
    assert line.startswith("trainer rank 1 on ")
    assert line.endswith("was lost: its process ended; the run goes on from its last checkpoint")
    assert sum("iteration 3/" in each for each in said) == 2
    assert sum("iteration 2/" in each for each in said) == 1


def recorded(made: list[Any], usual: Callable[..., None]) -> Callable[..., None]:
    """`__init__`, which notes what it made."""

    def init(self: Any, *arguments: Any) -> None:
        usual(self, *arguments)
        made.append(self)

    return init


def iterations(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [each for each in records if each["kind"] == "iteration"]
