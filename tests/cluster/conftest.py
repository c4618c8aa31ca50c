"""A small Ray cluster on this machine, for all tests of a process; nodes that a test wants to lose are its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentdistill.engines.registry import Setup
from agentdistill.engines.section import EngineSection

MEMORY = 100 << 20  # bytes of a node's object store


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """The head node alone, which holds four actors of the tests; this process is connected to it."""
    from agentdistill.cluster.connect import ray
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": MEMORY}
    )
    ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="session")
def setup_of() -> Callable[..., Setup]:
    """What an engine is opened for; actors are small."""

    def make(said: list[str] | None = None, timeout: float = 60, **sizes: Any) -> Setup:
        cpus = {f"cpus_per_{role}": 0.25 for role in ("sampler", "teacher", "environment")}
        section = {"kind": "ray", "timeout": timeout, "ray": {**cpus, "wait": 30, "teachers": 0, **sizes}}
        return Setup(EngineSection.model_validate(section), say=(said if said is not None else []).append)

    return make
