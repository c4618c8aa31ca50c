"""Every attack of `attacks.py` on every backend, from root and from a plain user; on `restricted` inside a container too.

After each of them, no process may be left: `herd.py` looks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentdistill.errors import UserError
from agentdistill.tools.sandbox import bwrap
from agentdistill.tools.sandbox.base import CAPABILITIES, SandboxError
from tests.docker_daemon import docker_host, run_in_container
from tests.needs import missing
from tests.tools.sandbox.attacks import ATTACKS

__all__ = ["docker_host"]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
HERD, DRIVE = str(HERE / "herd.py"), str(HERE / "drive.py")
USER = 60001  # a user that has no entry anywhere, no files and no other processes
SECONDS = 400
PATIENCE = "5"  # seconds in which what is ending may end
# A process that nothing of its past leads to: neither a parent, a session, a name, an environment nor a descriptor.
LEAVES_A_DAEMON = """
import ctypes, os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 32):
            if number not in (9, 19): signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 256)
        os.execve("/bin/sleep", ["innocent", "600"], {})
    os._exit(0)
os.wait()
"""


def herded(*command: str, user: str = "root", patience: str = PATIENCE, **environment: str) -> str:
    """Output of a command under `herd.py` on this machine, as root or as a plain user."""
    if user == "root" and os.geteuid():
        missing("attacks from root need root")
    if user == "user" and not os.geteuid():
        command = (sys.executable, str(HERE / "as_user.py"), str(USER), *command)
    run = subprocess.Popen(
        [sys.executable, HERD, patience, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = run.communicate(timeout=SECONDS)
    except BaseException:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        raise
    return f"{output}\n{errors[-2000:]}\nexit {run.returncode}"


def lines(output: str) -> dict[str, dict[str, Any]]:
    """What a drive and its herd said, by the name of an attack or a check."""
    return {line["name"]: line for line in map(json.loads, filter(lambda line: line.startswith("{"), output.splitlines()))}


def judge(output: str, misses: set[str]) -> None:
    """Hold a drive to every attack and to the capabilities that it must have had."""
    seen = lines(output)
    wrong = {name: [*line["wrong"], line.get("result", "")] for name, line in seen.items() if line.get("wrong")}
    assert wrong == {}
    assert output.rstrip().endswith("exit 0"), output[-3000:]
    assert {attack.name for attack in ATTACKS} | {"capabilities", "leaves nothing behind", "left behind"} == set(seen)
    assert set(seen["capabilities"]["missing"]) == misses
    assert set(seen["capabilities"]["holds"]) == set(CAPABILITIES) - misses


@pytest.mark.parametrize("user", ["root", "user"])
def test_no_attack_on_the_jail_succeeds(user: str) -> None:
    try:
        bwrap.find()
    except (SandboxError, UserError) as error:
        missing(str(error))
    judge(herded(sys.executable, DRIVE, "jail", user=user), misses=set())


@pytest.mark.parametrize("user", ["root", "user"])
def test_no_attack_on_the_restricted_sandbox_succeeds(user: str) -> None:
    judge(herded(sys.executable, DRIVE, "restricted", user=user), misses={"pids"})


@pytest.mark.parametrize("user", ["root", "user"])
def test_no_attack_on_the_restricted_sandbox_inside_a_container_succeeds(user: str, docker_host: str) -> None:
    output = run_in_container(
        docker_host,
        ["python", HERD, PATIENCE, "python", DRIVE, "restricted"],
        mounts={str(ROOT): str(ROOT)},
        timeout=SECONDS,
        user="0:0" if user == "root" else f"{USER}:{USER}",
        environment={"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
    )
    judge(output, misses={"pids"})


@pytest.mark.parametrize("user", ["root", "user"])
def test_no_attack_on_docker_containers_succeeds(user: str, docker_host: str) -> None:
    path = Path(docker_host.removeprefix("unix://"))
    if user == "user" and not os.geteuid() and path.is_socket():
        path.parent.chmod(0o711)
        os.chown(path, -1, USER)
        path.chmod(0o660)
    judge(herded(sys.executable, DRIVE, "docker", user=user, DOCKER_HOST=docker_host), misses=set())


def test_a_process_that_a_sandbox_leaves_behind_is_found_from_inside_and_from_outside() -> None:
    seen = lines(herded(sys.executable, DRIVE, "unsafe", "daemon", user="any", patience="0.5"))
    assert "the daemon outlived its session" in seen["daemon"]["wrong"]
    assert len(seen["leaves nothing behind"]["wrong"]) == 1
    (left,) = seen["left behind"]["wrong"]
    assert "addaemon" in left
    assert not Path(f"/proc/{left.split()[0]}").exists()


def test_a_process_is_found_that_cut_every_tie_but_its_descent() -> None:
    (left,) = lines(herded(sys.executable, "-c", LEAVES_A_DAEMON, user="any", patience="0.5"))["left behind"]["wrong"]
    assert left.endswith("sleep: innocent 600 ")
    assert not Path(f"/proc/{left.split()[0]}").exists()


def test_a_process_is_found_that_a_docker_daemon_started_for_the_command(docker_host: str) -> None:
    if os.geteuid():
        missing("the environment of another user's processes is root's to see")
    source = (
        "import os, docker\nfrom agentdistill.tools.sandbox import image\nfrom tests.tools.sandbox.herd import MARK\n"
        "client = docker.from_env()\n"
        "client.containers.run(image.ensure(client), ['python', '-c', 'import time; time.sleep(600)'], detach=True,\n"
        "    remove=True, network_mode='none', environment={MARK: os.environ[MARK]})"
    )
    output = herded(sys.executable, "-c", source, user="any", patience="0.5", DOCKER_HOST=docker_host, PYTHONPATH=str(ROOT))
    (left,) = lines(output)["left behind"]["wrong"]
    assert "time.sleep(600)" in left
    assert not Path(f"/proc/{left.split()[0]}").exists()
