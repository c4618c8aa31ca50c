"""No Java process outlives the environment that started it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from agentdistill.envs.java import needs_java
from agentdistill.envs.scienceworld.env import ScienceWorldEnv
from agentdistill.envs.scienceworld.java import Java
from agentdistill.envs.scienceworld.tasks import seed_of
from agentdistill.errors import UserError
from tests.needs import needs_scienceworld

FIND = seed_of("find-non-living-thing", 0)  # loads fast
_PARENT = """
import os, sys, time
from agentdistill.envs.scienceworld.java import Java
java = Java()
if sys.argv[1] == "fork" and os.fork() == 0:
    time.sleep(60)
print(java.pid, flush=True)
if sys.argv[1] != "exit":
    time.sleep(60)
"""


@pytest.fixture(scope="module", autouse=True)
def _real_parts() -> None:
    needs_scienceworld()


def ended(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_one_process_is_reused_until_close_and_started_anew_by_reset():
    env = ScienceWorldEnv()
    env.reset(seed=FIND)
    pid = env._engine.java.pid
    env.reset(seed=FIND + 1)
    assert env._engine.java.pid == pid
    assert "java" in psutil.Process(pid).name()
    env.close()
    env.close()
    assert not psutil.pid_exists(pid)
    env.reset(seed=FIND)
    again = env._engine.java.pid
    os.kill(again, signal.SIGKILL)
    with pytest.raises(RuntimeError, match=r"Java process has ended; reset\(\) starts another"):
        env.step("look around")
    assert env.reset(seed=FIND)[1]["task"] == "find-non-living-thing"
    env.close()


def test_it_ends_with_an_environment_that_nobody_holds_any_more():
    env = ScienceWorldEnv()
    env.reset(seed=FIND)
    pid = env._engine.java.pid
    del env
    gc.collect()
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("how", ["exit", "kill", "fork"])
def test_it_ends_with_the_process_that_started_it(how: str):
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, how], stdout=subprocess.PIPE, start_new_session=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    if how == "exit":
        parent.wait()
    else:
        assert psutil.pid_exists(pid)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert ended(pid)
    if how == "fork":  # the fork that held the pipe open
        os.killpg(parent.pid, signal.SIGKILL)


def test_a_missing_java_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert needs_java() == "needs Java: sudo apt-get install -y openjdk-17-jre-headless"
    for make in (ScienceWorldEnv, Java):
        with pytest.raises(UserError, match="no 'java' command; install it with: sudo apt-get install -y openjdk-17"):
            make()


def test_a_java_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\nexit 3\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"did not start .*; install OpenJDK 17"):
        Java()
