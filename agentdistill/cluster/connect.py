"""The Ray cluster that a run is part of, or one of this machine alone that is there for the run."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from agentdistill.errors import UserError
from agentdistill.faults import one_line

# Ray reads them when it is imported, or starts a cluster. Its workers would give way to every other process, which is not meant
# for those that do the work.
for _name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_worker_niceness"):
    os.environ.setdefault(_name, "0")

import ray as ray  # noqa: E402, PLC0414

LOCAL, AUTO = "local", "auto"
_KNOCK = 10.0  # seconds that a machine may take to answer


@dataclass(frozen=True, slots=True)
class Node:
    """A node: its id, how it is called in the log, and what Ray may give away of it, by name (`CPU`, `GPU`)."""

    id: str
    name: str
    resources: Mapping[str, float]


class Cluster:
    """The connection of this process.

    Args:
        address: see `EngineSection.address`. A process that is connected already stays so, whatever it says.

    Raises:
        UserError: when no cluster is there, or it does not take this process.
    """

    def __init__(self, address: str) -> None:
        self._own = not ray.is_initialized()
        if not self._own:
            return
        before = signal.getsignal(signal.SIGTERM)
        try:
            _knock(os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address)
            if address == LOCAL:
                ray.init(address=LOCAL, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            else:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, OSError, AssertionError) as error:
            raise UserError(
                f"engine.address is '{address}', and no Ray cluster takes this process there ({one_line(str(error), 200)}); "
                "start one with `ray start --head` and join it on the other machines, or set engine.address to local"
            ) from error
        finally:
            if before is not None and signal.getsignal(signal.SIGTERM) is not before:
                signal.signal(signal.SIGTERM, before)  # how a run is stopped is not Ray's to say

    @staticmethod
    def nodes() -> list[Node]:
        """The nodes that are alive, in a fixed order."""
        alive = [each for each in ray.nodes() if each["Alive"]]
        found = [Node(each["NodeID"], named(each["NodeID"], each["NodeManagerHostname"]), each["Resources"]) for each in alive]
        return sorted(found, key=lambda node: (node.name, node.id))

    def close(self) -> None:
        """Leave the cluster; one that was started for this process ends."""
        if self._own and ray.is_initialized():
            ray.shutdown()


def _knock(address: str) -> None:
    """Ray itself would ask for minutes where nobody is.

    Raises:
        OSError: when nothing listens at `host:port`, or `ray://host:port`; other addresses are Ray's to judge.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()
        except (OSError, OverflowError) as error:
            raise OSError(f"nothing listens at {host}:{port}: {error}") from error


def named(node: str, machine: str) -> str:
    """A node in the log: the machine, and as much of the id as tells several on one machine apart."""
    return f"{machine} ({node[:6]})"
