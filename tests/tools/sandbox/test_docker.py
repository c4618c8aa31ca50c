"""The docker backend's own behaviour: pool, image, labels, errors. What must hold against attacks is in the attack suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agentdistill.errors import UserError
from agentdistill.tools.sandbox.base import CAPABILITIES, Limits, SandboxError, Status
from agentdistill.tools.sandbox.open import open_sandbox
from tests.docker_daemon import docker_host, run_in_container
from tests.needs import needs

needs("docker", "pip install 'agentdistill[docker]'")

from agentdistill.tools.sandbox import docker as backend  # noqa: E402
from agentdistill.tools.sandbox import image  # noqa: E402

__all__ = ["docker_host"]
QUICK = Limits(cpu_seconds=1.0, wall_seconds=5.0)


@pytest.fixture(scope="module")
def sandbox(docker_host: str) -> Iterator[backend.DockerSandbox]:
    made = backend.DockerSandbox(QUICK)
    yield made
    made.close()


def owned(client: Any, process: str | None = None) -> dict[str, str]:
    """State by id of the containers of a process, this one unless given; other tests may use the same daemon."""
    owner = f"{backend._machine()}/{process or backend._process()}"
    listed = client.containers.list(all=True, filters={"label": f"{backend.LABEL}={owner}"}, sparse=True)
    return {each.id: each.attrs["State"] for each in listed}


def test_a_session_keeps_its_names_and_gives_output_and_value(sandbox: Any) -> None:
    session = sandbox.open()
    session.run("x = 20")
    result = session.run("print('printed'); x + 1")
    assert (result.status, result.stdout, result.value) == (Status.OK, "printed\n", "21")
    session.close()


def test_output_before_an_answer_belongs_to_its_call(sandbox: Any) -> None:
    session = sandbox.open()
    for number in range(50):
        assert session.run(f"print('{number}' * 2000)").stdout == f"{number}" * 2000 + "\n"
    session.close()


def test_numpy_and_sympy_are_in_the_image(sandbox: Any) -> None:
    session = sandbox.open(Limits())
    result = session.run("import numpy, sympy; int(numpy.arange(4).sum()), str(sympy.factor('x**2-1'))")
    assert result.value == "(6, '(x - 1)*(x + 1)')"
    session.close()


def test_sockets_are_connected_pairs_and_event_loops_work(sandbox: Any) -> None:
    session = sandbox.open()
    assert session.run("import socket\nsocket.socket(socket.AF_INET)").error.startswith("PermissionError")
    assert session.run("import asyncio; asyncio.run(asyncio.sleep(0, 'slept'))").value == "'slept'"
    session.close()


def test_a_dead_interpreter_is_replaced_and_its_end_is_named(sandbox: Any) -> None:
    session = sandbox.open()
    result = session.run("import os; os.kill(os.getpid(), 9)")
    assert (result.status, result.state_lost) == (Status.CRASHED, True)
    assert "signal 9" in result.error
    assert session.run("1").value == "1"
    session.close()


def test_the_runners_end_is_seen_although_its_children_live(sandbox: Any) -> None:
    session = sandbox.open()
    began = time.monotonic()
    result = session.run("import os, time\nif os.fork() == 0: time.sleep(60)\nos._exit(3)")
    assert result.status is Status.CRASHED
    assert "code 3" in result.error
    assert time.monotonic() - began < QUICK.wall_seconds
    session.close()


def test_cpu_time_is_measured_from_outside(sandbox: Any) -> None:
    session = sandbox.open()
    result = session.run("while True: pass")
    assert result.status is Status.TIMEOUT
    assert 1.0 <= result.cpu_seconds < 3.0
    session.close()


def test_limits_are_watched_through_the_daemon_where_its_control_groups_are_out_of_reach(
    sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.Cgroup, "of", lambda pid: None)
    session = sandbox.open(Limits(cpu_seconds=1.0, wall_seconds=20.0, session_memory_bytes=256 << 20, open_files=100))
    assert session.run("while True: pass").error == "stopped after 1 s of CPU time"
    result = session.run("import time\nkept = [bytearray(1 << 20) for _ in range(300)]\ntime.sleep(15)")
    assert result.status is Status.MEMORY
    session.close()


def test_memory_beyond_the_containers_is_a_memory_status(sandbox: Any) -> None:
    limits = Limits(cpu_seconds=20, wall_seconds=30, session_memory_bytes=128 << 20, disk_bytes=16 << 20)
    session = sandbox.open(limits)
    result = session.run("kept = []\nwhile True: kept.append(bytearray(1 << 20))")
    assert result.status is Status.MEMORY
    session.close()


def test_every_capability_holds(sandbox: Any) -> None:
    found = sandbox.probe()
    assert found.holds == set(CAPABILITIES), found.missing


def test_closing_leaves_no_container_behind(docker_host: str) -> None:
    before = owned(backend.connect()).keys()
    made = backend.DockerSandbox(QUICK)
    sessions = [made.open() for _ in range(3)]
    assert len(owned(made.client)) > len(before)
    assert [each.run("1").value for each in sessions] == ["1"] * 3
    made.close()
    assert owned(backend.connect()).keys() - before == set()
    with pytest.raises(SandboxError, match="closed"):
        made.open()


def test_containers_of_a_process_that_was_killed_end_by_themselves_and_are_swept(sandbox: Any, docker_host: str) -> None:
    code = (
        "import os; from agentdistill.tools.sandbox import docker\n"
        "docker.DockerSandbox().open().run('x = 1'); print(docker._process(), flush=True); os.kill(os.getpid(), 9)"
    )
    dead = (
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "DOCKER_HOST": docker_host},
            check=False,
            timeout=60,
            stdout=subprocess.PIPE,
        )
        .stdout.decode()
        .strip()
    )
    until = time.monotonic() + 20
    while "running" in owned(sandbox.client, dead).values() and time.monotonic() < until:
        time.sleep(0.1)
    left = owned(sandbox.client, dead)
    assert left
    assert "running" not in left.values()
    living = sandbox.open()
    living.run("x = 1")
    backend.sweep(sandbox.client)
    assert owned(sandbox.client, dead) == {}
    assert living.run("x").value == "1"
    living.close()


def test_a_container_has_neither_network_nor_privileges_nor_a_log(sandbox: Any) -> None:
    session = sandbox.open()
    settings = session._interpreter._api.inspect_container(session._interpreter._id)  # others of the pool may be ending
    host, config = settings["HostConfig"], settings["Config"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
    assert (host["SecurityOpt"], host["LogConfig"]["Type"]) == (["no-new-privileges"], "none")
    assert (config["User"], host["PidsLimit"]) == ("65534:65534", QUICK.processes + 1)
    assert 0 < host["Memory"] == host["MemorySwap"]
    session.close()


def test_files_are_bounded_on_every_writable_folder(sandbox: Any) -> None:
    limits = Limits(disk_bytes=8 << 20, disk_inodes=64, file_bytes=32 << 20)
    session = sandbox.open(limits)
    code = (
        "import os\nsizes = {}\nfor folder in ('/work', '/tmp', '/dev/shm'):\n    s = os.statvfs(folder)\n"
        "    sizes[folder] = s.f_blocks * s.f_frsize\nopen('/work/a', 'w').write('x'); sum(sizes.values())"
    )
    assert session.run(code).value == str(8 << 20)
    assert "No space" in session.run("open('/work/b', 'wb').write(bytes(9 << 20))").error
    assert "Read-only" in session.run("open('/usr/x', 'w')").error
    session.close()


def test_the_image_is_made_once(sandbox: Any) -> None:
    before = sandbox.client.images.get(sandbox.image).id
    assert image.ensure(sandbox.client) == sandbox.image
    assert sandbox.client.images.get(sandbox.image).id == before


def test_other_things_run_in_a_container_of_the_image(docker_host: str) -> None:
    code = "import json, os; print(json.dumps([os.getuid(), os.path.exists('/there/base.py')]))"
    said = run_in_container(docker_host, ["python", "-c", code], {os.path.dirname(backend.__file__): "/there"})
    first, last = said.strip().splitlines()
    assert (json.loads(first), last) == ([0, True], "exit 0")


def test_an_image_of_ones_own_is_taken_by_name(sandbox: Any) -> None:
    sandbox.client.images.get(sandbox.image).tag("lab-own", "1")
    made = open_sandbox("docker:lab-own:1", QUICK)
    session = made.open()
    assert session.run("2").value == "2"
    made.close()
    sandbox.client.images.remove("lab-own:1")


def test_an_image_there_is_not_is_named(docker_host: str) -> None:
    with pytest.raises(UserError, match="no image 'lab-none:1'"):
        open_sandbox("docker:lab-none:1")


def test_a_missing_daemon_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(UserError) as caught:
        open_sandbox("docker")
    assert "no Docker daemon answers at unix:///nowhere/docker.sock" in str(caught.value)
    assert "\n" not in str(caught.value)
