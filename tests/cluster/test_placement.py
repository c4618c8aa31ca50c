"""Who fits where: counted without a cluster, and by the doctor on one."""

from __future__ import annotations

from typing import Any

import pytest

from agentdistill import api
from agentdistill.doctor import CHECKS
from agentdistill.doctor.patient import Patient
from agentdistill.engines.section import EngineSection
from agentdistill.errors import UserError
from tests.needs import needs

needs("ray", "pip install 'agentdistill[ray]'")

from agentdistill.cluster.connect import Node  # noqa: E402
from agentdistill.cluster.placement import Place, Reservation, homeless, places, shortage  # noqa: E402


def node(cpus: float, gpus: float = 0) -> Node:
    return Node(f"{cpus}-{gpus}", "node", {"CPU": cpus, "GPU": gpus, "memory": 1e9})


def section(**ray: Any) -> EngineSection:
    return EngineSection.model_validate({"kind": "ray", "ray": ray})


def test_places_are_counted_by_role_and_teachers_by_model() -> None:
    found = places(section(samplers=2, teachers=3, trainers=2, environments=1, gpus_per_teacher=0.5), teachers=2)
    assert [place.name for place in found if place.role == "teacher"] == [f"teacher {i}" for i in range(6)]
    assert len(found) == 2 + 6 + 2 + 1
    assert found[2].bundle == {"CPU": 1.0, "GPU": 0.5}
    assert places(EngineSection.model_validate({"teacher": "ray"}), teachers=1) == [Place("teacher", 0, 1.0)]


def test_a_large_place_is_put_before_small_ones_fill_its_node() -> None:
    wanted = [Place("sampler", 0, 1), Place("sampler", 1, 1), Place("teacher", 0, 3, 1)]
    assert homeless(wanted, [node(4, 1), node(1)]) == []
    assert homeless(wanted, [node(3, 1), node(1)]) == [Place("sampler", 1, 1)]
    assert homeless(wanted, [node(2, 1), node(2, 1)]) == [Place("teacher", 0, 3, 1)]  # not over two nodes
    assert "no room for 1 of 1 teachers, of 3 CPU and 1 GPU each (its nodes: 2 × 2 CPU and 1 GPU)" in shortage(
        wanted, [node(2, 1), node(2, 1)]
    )


def test_the_doctor_counts_them_on_the_cluster_that_is_there(cluster: Any) -> None:
    def found(**ray: Any) -> Any:
        raw = {
            "env": "lab/Guess-v0", "student": {"model": "lab/student@main"}, "teacher": {"model": "lab/teacher@main"},
            "engine": {"kind": "ray", "ray": ray},
        }  # fmt: skip
        return CHECKS["cluster"].examine(Patient(api.experiment(raw)))

    good = found(cpus_per_sampler=0.5, cpus_per_teacher=0.5)
    assert good.outcome == "ok"
    assert good.detail.startswith("2 actors take 1 CPU and 0 GPU of 1 nodes")
    short = found(samplers=1, gpus_per_sampler=1, teachers=0)
    assert short.outcome == "fail"
    assert "no room for 1 of 1 samplers, of 1 CPU and 1 GPU each (its nodes: 1 × 1 CPU)" in short.detail


def test_no_actor_at_all_is_refused_and_nodes_that_do_not_come_are_waited_for(cluster: Any) -> None:
    with pytest.raises(UserError, match="gives no role an actor"):
        Reservation([], spread=False, wait=1)
    said: list[str] = []
    with pytest.raises(UserError, match="no room for 1 of 1 samplers"):
        Reservation([Place("sampler", 0, 99)], spread=False, wait=0.1, say=said.append)
    assert said[0].startswith("waiting for nodes, 0.1 s at most: the Ray cluster has no room")
