"""Two real ranks, each in a fork of a process that has imported everything; and a small Ray cluster on this machine.

Nodes of the cluster that a test wants to lose are its own.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from agentdistill.engines.registry import Setup
from agentdistill.engines.section import EngineSection
from tests.forking import Forks

MEMORY = 100 << 20  # bytes of a node's object store
PROGRAM = str(Path(__file__).with_name("rank.py"))


class Pair:
    """Starts two ranks at a time."""

    def __init__(self, forks: list[Forks]) -> None:
        self._forks = forks

    def start(self, out: Path, scenarios: str, timeout: float = 60, linger: float = 0) -> list[int]:
        """Begin scenarios, their names with spaces between; the process ids by rank.

        Args:
            linger: seconds that the others take to leave once they know that it is over.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        variables = {
            "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANKS_OUT": str(out),
            "RANKS_SCENARIOS": scenarios, "RANKS_TIMEOUT": str(timeout), "RANKS_LINGER": str(linger),
        }  # fmt: skip
        self._out = out
        return [
            forks.start(["python", PROGRAM], str(out / f"rank-{rank}.log"), RANK=str(rank), **variables)
            for rank, forks in enumerate(self._forks)
        ]

    def wait(self) -> tuple[list[int], list[str]]:
        """Exit codes and output by rank."""
        codes = [forks.wait() for forks in self._forks]
        return codes, [(self._out / f"rank-{rank}.log").read_text() for rank in range(len(self._forks))]

    def run(self, out: Path, scenarios: str) -> dict[str, Any]:
        """What the scenarios gave, by name."""
        self.start(out, scenarios)
        codes, said = self.wait()
        assert codes == [0, 0], said
        results: dict[str, Any] = torch.load(out / "results.pt", weights_only=False)
        return results


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair([stack.enter_context(Forks(modules=["tests.cluster.scenarios", "torch._dynamo"])) for _ in range(2)])


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """The head node alone, which holds four actors of the tests; this process is connected to it."""
    from ray.cluster_utils import Cluster

    from agentdistill.cluster.connect import ray

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

    def make(said: list[str] | None = None, timeout: float = 120, **sizes: Any) -> Setup:
        cpus = {f"cpus_per_{role}": 0.25 for role in ("sampler", "teacher", "environment")}
        section = {"kind": "ray", "timeout": timeout, "ray": {**cpus, "wait": 240, "teachers": 0, **sizes}}
        return Setup(EngineSection.model_validate(section), say=(said if said is not None else []).append)

    return make
