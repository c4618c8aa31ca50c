"""A Ray cluster of several nodes on this machine, which a run connects to and which outlives it. A node of it can be killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Iterator
from typing import Any, Self

from tests.chaos.machine import MARK, Process, beneath, marked

MEMORY = 100 << 20  # bytes of a node's object store


class Nodes:
    """The head, where a run's own process is, and others.

    Args:
        mark: of every process of the cluster.
        count: nodes, with the head.
    """

    def __init__(self, mark: str, count: int) -> None:
        from agentdistill.cluster.connect import ray  # noqa: F401  (first: it says how Ray is to be started)

        from ray.cluster_utils import Cluster  # isort: skip

        self._mark = mark
        with self._marking():
            self._cluster: Any = Cluster(
                initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": MEMORY}
            )
        for _ in range(count - 1):
            self.add()

    @property
    def address(self) -> str:
        """Where its head is."""
        return str(self._cluster.address)

    @property
    def processes(self) -> list[Process]:
        """Its own, and those of whoever runs on it."""
        return marked(self._mark)

    def add(self) -> None:
        """One more node."""
        with self._marking():
            self._cluster.add_node(num_cpus=1, object_store_memory=MEMORY)

    def kill(self, rng: random.Random) -> None:
        """One node, not the head, is gone at once with all that ran on it, and another comes."""
        node = rng.choice(sorted(self._cluster.worker_nodes, key=lambda each: str(each.node_id)))
        pids = [each.process.pid for every in node.all_processes.values() for each in every]
        for each in beneath(set(pids)):
            each.signal(signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)
        self.add()

    def close(self) -> None:
        """End it, and whatever it has left."""
        self._cluster.shutdown()
        for each in self.processes:
            each.signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _marking(self) -> Iterator[None]:
        before = os.environ.get(MARK)
        os.environ[MARK] = self._mark
        try:
            yield
        finally:
            del os.environ[MARK]
            if before is not None:
                os.environ[MARK] = before
