"""`agentdistill view --serve`: the same page, to this machine alone, until Ctrl-C."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentdistill.cli import main
from agentdistill.errors import UserError
from agentdistill.store import Store
from agentdistill.viewer import Page, Server
from tests.viewer.conftest import Stored


@pytest.fixture(scope="module")
def folder(stored: Stored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store of real trajectories, which grows in these tests."""
    made = tmp_path_factory.mktemp("served") / "run"
    Store(made / "store").write("first", [stored.get("ViewedUnits-v0/0000")])
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(Page(folder)) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server: Server, path: str = "/", method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def test_the_page_is_the_one_that_would_be_written(server: Server, folder: Path):
    from agentdistill.viewer import write

    status, body, headers = ask(server)
    page, _ = write(folder, folder.parent / "page.html")
    assert (status, body) == (200, page.read_bytes())
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert ask(server, method="HEAD")[:2] == (200, b"")


@pytest.mark.parametrize("path", ["/store/first.parquet", "/../experiment.yaml", "/%2e%2e/etc/passwd", "/index.html"])
def test_there_is_nothing_but_the_page(server: Server, path: str):
    status, body, _ = ask(server, path)
    assert status == 404
    assert b"<html" not in body


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}", ""])
def test_another_hosts_name_is_refused(server: Server, host: str):
    """A page of elsewhere whose name was made to lead to this machine would otherwise read the run."""
    status, body, _ = ask(server, host=host.format(port=server.port))
    assert status == 421
    assert b"<html" not in body
    assert ask(server, host=f"localhost:{server.port}")[0] == 200


def test_nothing_may_be_sent_to_it(server: Server):
    assert ask(server, method="POST")[0] == 501


def test_only_this_machine_reaches_it(server: Server):
    assert server.server_address[0] == "127.0.0.1"
    other = next((each for each in addresses() if not each.startswith("127.")), None)
    if other is None:
        pytest.skip("this machine has no address but loopback")
    with pytest.raises(OSError), socket.create_connection((other, server.port), timeout=5):  # noqa: PT011
        pass


def addresses() -> list[str]:
    """This machine's own addresses; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [str(probe.getsockname()[0])]


def test_a_reload_shows_what_was_stored_since_and_tells_what_cannot_be_read(server: Server, folder: Path, stored: Stored):
    before = ask(server)[1]
    assert ask(server)[1] is not None
    Store(folder / "store").write("second", [stored.get("ViewedUnits-v0/0001")])
    after = ask(server)[1]
    assert after != before
    shutil.move(folder / "store", folder / "away")
    try:
        status, body, _ = ask(server)
        assert status == 500
        assert b"no trajectories" in body
    finally:
        shutil.move(folder / "away", folder / "store")
    assert ask(server)[1] == after


def test_a_port_that_is_taken_or_none_is_refused(server: Server, folder: Path):
    with pytest.raises(UserError, match=f"port {server.port} of 127.0.0.1 cannot be used"):
        Server(Page(folder), server.port)
    with pytest.raises(UserError, match="from 0"):
        Server(Page(folder), 70000)


def test_the_served_page_works_in_a_browser(server: Server, browser, stored: Stored):
    from tests.viewer.browser import Viewer

    viewer = Viewer(browser, server.address)
    viewer.errors()
    viewer.open("trajectory=ViewedUnits-v0/0000&turn=2")
    assert viewer.shown() == "ViewedUnits-v0/0000"
    assert viewer.text(".turn.current .number") == "Turn 2"
    viewer.type("q", "metres")
    assert 0 in viewer.searched()
    assert viewer.errors() == []


def test_ctrl_c_ends_it_with_130(folder: Path, capsys: pytest.CaptureFixture[str]):
    """In this process: a reader, a thread of its own, gets the page and then presses the keys."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers: list[int] = []

    def read_and_stop() -> None:
        for _ in range(600):
            time.sleep(0.05)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
                    answers.append(answer.status)
                break
            except urllib.error.URLError:  # not up yet
                continue
        os.kill(os.getpid(), signal.SIGINT)

    reader = threading.Thread(target=read_and_stop)
    reader.start()
    code = main(["view", str(folder), "--serve", "--port", str(port)])
    reader.join()
    assert answers == [200]
    assert code == 130
    assert f"http://127.0.0.1:{port}/" in capsys.readouterr().out
    assert not (folder / "viewer.html").exists()
