"""Addresses at which no cluster is."""

from __future__ import annotations

import socket
import time

import pytest

from agentdistill.errors import UserError
from tests.needs import needs

needs("ray", "pip install 'agentdistill[ray]'")

from agentdistill.cluster import connect  # noqa: E402


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that Ray itself was asked to go to, which takes minutes."""
    heard: list[str] = []

    def init(address: str, **_: object) -> None:
        heard.append(address)
        raise ConnectionError("nobody")

    monkeypatch.setattr(connect.ray, "init", init)
    return heard


@pytest.mark.parametrize("where", ["{}", "ray://{}", "auto"])
def test_an_address_where_nothing_listens_is_refused_at_once(
    where: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", free)
    began = time.monotonic()
    with pytest.raises(UserError, match=f"nothing listens at .*{free}.*start one with `ray start --head`"):
        connect.Cluster(where.format(free))
    assert time.monotonic() - began < 5
    assert asked == []


def test_where_something_listens_and_at_other_addresses_ray_decides(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for where in (f"127.0.0.1:{server.getsockname()[1]}", "auto", "local", "nonsense"):
            with pytest.raises(UserError, match="no Ray cluster takes this process there"):
                connect.Cluster(where)
            assert asked.pop() == where
