"""Two real ranks, each in a fork of a process that has imported everything."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.forking import Forks

PROGRAM = str(Path(__file__).with_name("rank.py"))


class Pair:
    """Starts two ranks at a time."""

    def __init__(self, forks: list[Forks]) -> None:
        self._forks = forks

    def start(self, out: Path, scenarios: str, timeout: float = 60) -> list[int]:
        """Begin scenarios, their names with spaces between; the process ids by rank."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        variables = {
            "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANKS_OUT": str(out),
            "RANKS_SCENARIOS": scenarios, "RANKS_TIMEOUT": str(timeout),
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
