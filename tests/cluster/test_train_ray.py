"""One experiment on a cluster of three nodes by its `engine` section alone, of which one is killed."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentdistill import api
from agentdistill.policies.model import CausalLM
from agentdistill.store import Store
from tests.cluster.conftest import MEMORY
from tests.needs import needs

needs("ray", "pip install 'agentdistill[ray]'")

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures

ITERATIONS, TASKS = 4, 8
REVERSE = """
import random
import agentdistill as ad


@ad.register("lab/Reverse-v0")
class Reverse(ad.TextEnv):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.word = "".join(random.Random(seed).choices("abcdef", k=3))
        return self.word, {"task_id": f"reverse-{seed}"}

    def step(self, action):
        won = action.strip() == self.word[::-1]
        return "yes" if won else "no", float(won), won, False, {"success": won}
"""


@pytest.fixture
def nodes(cluster: Any) -> Iterator[list[Any]]:
    """Two nodes beside the head."""
    added = [cluster.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2)]
    cluster.wait_for_nodes()
    yield added
    for node in added:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


def test_a_run_goes_on_when_a_node_with_actors_of_every_role_is_killed(
    cluster: Any, nodes: list[Any], make_lm: Callable[[int], CausalLM], tmp_path: Path
) -> None:
    for name, seed in (("student", 1), ("teacher", 2)):
        make_lm(seed).save(tmp_path / name)
    (tmp_path / "reverse.py").write_text(REVERSE)
    said: list[str] = []
    killed: list[threading.Timer] = []

    def hear(line: str) -> None:
        said.append(line)
        if "iteration 2/" in line and not killed:  # in the middle of what follows it
            doomed = next(node for node in nodes if node.node_id[:6] == victim(said))
            killed.append(threading.Timer(0.1, cluster.remove_node, (doomed,), {"allow_graceful": False}))
            killed[0].start()

    sizes = {"samplers": 2, "teachers": 1, "environments": 2, "spread": True, "wait": 240}
    cpus = {f"cpus_per_{role}": 0.25 for role in ("sampler", "teacher", "environment")}
    api.train(
        {
            "env": {"id": "lab/Reverse-v0", "module": str(tmp_path / "reverse.py"), "max_turns": 3, "max_context": 256},
            "student": {"model": str(tmp_path / "student")},
            "teacher": {"model": str(tmp_path / "teacher")},
            "method": "opd-exact",
            "sampling": {"max_tokens": 12},
            "train": {"iterations": ITERATIONS, "tasks": TASKS, "lr": 1e-2},
            "eval": {"tasks": 4, "temperature": 1.0},
        },
        out=tmp_path / "run", say=hear, **{"engine.kind": "ray", "engine.address": "auto", "engine.ray": sizes | cpus},
    )  # fmt: skip
    killed[0].join()
    assert killed[0].finished.is_set()
    placement = [line for line in said if line.startswith("placement: ")]
    assert len(placement) == 3
    assert said.index(placement[-1]) < next(i for i, line in enumerate(said) if "success" in line)  # before anything is played

    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    iterations = [each for each in records if each["kind"] == "iteration"]
    assert [each["iteration"] for each in iterations] == list(range(1, ITERATIONS + 1))
    assert all(math.isfinite(each[name]) for each in iterations for name in ("loss", "kl", "grad_norm"))
    assert all(each["sampler_gap"] < 1e-3 for each in iterations)  # with the weights of now, on every actor
    assert iterations[-1]["kl"] < iterations[0]["kl"]
    store = Store(tmp_path / "run" / "store")
    for i in range(1, ITERATIONS + 1):
        played = store.read(f"iter-{i:06d}")
        assert [each.id for each in played] == [f"iter-{i:06d}/{k:04d}" for k in range(TASKS)]
        assert {each.policy_version for each in played} == {i - 1}
        assert not [each.error for each in played if each.error]
    lost = [line for line in said if "was lost" in line]
    assert {line.split()[0] for line in lost} <= {"sampler", "teacher", "environment"}
    assert any(line.startswith("sampler") for line in lost)
    assert all(f"({victim(said)}) was lost: its node is gone; replaced on " in line for line in lost)


def victim(said: list[str]) -> str:
    """The node, other than the head, that has a sampler and the most roles."""
    found = [re.fullmatch(r"placement: \S+ \((\w+)\): (.*)", line) for line in said if line.startswith("placement: ")]
    there = {match[1]: match[2] for match in found if match is not None}
    import ray

    head = next(node["NodeID"][:6] for node in ray.nodes() if "node:__internal_head__" in node["Resources"])
    return max((node for node in there if node != head and "sampler" in there[node]), key=lambda node: len(there[node]))
