"""A training run as the harness sees it: the command that a user types, its processes, its log and its folder."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.machine import MARK, Disk, Hang, Process, marked, until
from tests.chaos.nodes import Nodes
from tests.forking import Forks

PATIENCE = 300.0
"""Seconds without a new line of metrics or log that count as a hang: importing torch takes minutes on a busy machine."""
GOING = 8.0  # seconds for what a run has started to be gone after it
FAREWELL = 75.0  # and for what is Ray's own: an agent whose raylet is gone tries to tell the driver of it, for a minute, and a
# worker that was just being started looks for its raylet about as long
_WORKER = "agentdistill.pool_child"
_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
_STARTED = "/ray/_private/workers/default_worker.py"  # a worker that has no actor yet; with one it is called after it
_HOST = re.compile(r"ray::(\w+Host)\b")  # as Ray names an actor's process
_TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node")
_TROUBLE = re.compile(r"Traceback \(most recent call last\)|Unhandled error \(suppress with ")
_TORCHRUNS_OWN = ("ChildFailedError", "SignalException")  # how torchrun ends when what it started has failed, or it was told to


class Running:
    """A run that is started, struck, and started again with --resume.

    Args:
        experiment: YAML file.
        disk: where its folder is.
        logs: for what it prints: the path without its end, `-1.log` for the first start.
        options: overrides of the experiment.
        ranks: trainer ranks under torchrun; 0: one process.
        nodes: the cluster that it connects to, if any.
        forks: starts the command in a fork of what has imported everything; without, as a user does.
    """

    def __init__(
        self, experiment: Path, disk: Disk, logs: Path, options: Sequence[str] = (), ranks: int = 0,
        nodes: Nodes | None = None, forks: Forks | None = None,
    ) -> None:  # fmt: skip
        self.out, self.disk, self.mark, self.starts = disk.folder / "run", disk, uuid.uuid4().hex, 0
        self.nodes, self._seen = nodes, dict[int, Process]()
        self._words = ["train", str(experiment), "--out", str(self.out), "--resume", *options]
        launcher = [*_TORCHRUN, str(ranks), "-m", "agentdistill"] if ranks else ["agentdistill.cli"]
        self._command = [sys.executable, "-m", *launcher]
        self._logs, self._forks = logs, forks
        self._pid, self._code = 0, None if forks is None else 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, or go on."""
        self.starts += 1
        if self._forks is not None:
            self._code, self._pid = None, self._forks.start(self._words, str(self.log), **{MARK: self.mark})
            return
        variables = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | dict(os.environ) | {MARK: self.mark}
        words = [*self._command, *self._words]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables)
        self._pid = self._process.pid

    @property
    def log(self) -> Path:
        """What it printed since it was started last."""
        return self._logs.with_name(f"{self._logs.name}-{self.starts}.log")

    @property
    def main(self) -> Process | None:
        """The process that was started, while it lives."""
        return None if self.over else Process.read(self._pid)

    @property
    def processes(self) -> list[Process]:
        """All there are, on a cluster too; one whose parent has ended since it was seen is still the run's."""
        there = [] if self.nodes is None else self.nodes.processes
        found = marked(self.mark) + [each for each in there if _HOST.match(each.words[0]) or _is_worker(each)]
        before = {pid: each for pid, each in self._seen.items() if each.alive}
        self._seen = before | {each.pid: each for each in found}
        return list(self._seen.values())

    @property
    def workers(self) -> list[Process]:
        """Those that hold environments."""
        return [each for each in self.processes if _is_worker(each)]

    @property
    def ranks(self) -> list[Process]:
        """Trainer ranks that torchrun started."""
        mine = [each for each in self.processes if "RANK" in each.variables]
        return [each for each in mine if not _is_worker(each)]

    def actors(self, host: str) -> list[Process]:
        """Ray's processes with such an actor in them, by the name of its class."""
        found = [(each, _HOST.match(each.words[0])) for each in self.processes]
        return [each for each, match in found if match is not None and match[1] == host]

    @property
    def lines(self) -> int:
        """Lines of metrics so far."""
        path = self.out / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    @property
    def over(self) -> bool:
        """Whether the process that was started has ended."""
        if self._forks is not None:
            return self._code is not None or not self._forks.busy
        return self._process is None or self._process.poll() is not None

    @property
    def said(self) -> str:
        """What was printed since it was started last."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    @property
    def sentence(self) -> str:
        """The last line of it that is the command's own; torchrun's last one on a rank, where it has ended them all before."""
        own = [line for line in self.said.splitlines() if line.startswith("agentdistill: ")]
        torchruns = [line for line in self.said.splitlines() if line.startswith("  traceback : ")]
        return (own or torchruns or [""])[-1]

    @property
    def tracebacks(self) -> list[str]:
        """Those in it, and what Ray prints of an error that nobody heard of; but for torchrun's own."""
        found = _TROUBLE.split(self.said)[1:]
        return [each for each in found if not any(name in each for name in _TORCHRUNS_OWN)]

    def life(self) -> tuple[int, int]:
        """A sign of life: it changes while the run goes on."""
        log, metrics = (path.stat().st_size if path.exists() else 0 for path in (self.log, self.out / "metrics.jsonl"))
        return log, metrics

    def end(self) -> int:
        """Wait for its end; the exit code, negative for a signal.

        Raises:
            Hang: when nothing happens any more.
        """
        until(lambda: self.over, PATIENCE, "end of the run", self.life)
        if self._process is not None:
            return int(self._process.returncode)
        if self._code is None:
            assert self._forks is not None
            self._code = self._forks.wait()
        return self._code

    def orphans(self) -> list[Process]:
        """What is left of a run that has ended, after a moment to end too."""

        def others() -> list[Process]:
            return [each for each in self.processes if not _is_rays_own(each)]

        with contextlib.suppress(Hang):
            until(lambda: not others(), GOING, "end of what the run has started")
            until(lambda: not self.processes, FAREWELL, "end of Ray's own processes")
        return self.processes

    def stacks(self) -> str:
        """Where its processes are, as far as py-spy can tell."""
        spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
        if spy is None:
            return "no py-spy is installed to tell where"
        words = [[spy, "dump", "--pid", str(each.pid)] for each in self.processes]
        return "\n".join(subprocess.run(w, capture_output=True, text=True, check=False, timeout=60).stdout for w in words)

    def kill(self) -> None:
        """End whatever there is of it."""
        if (main := self.main) is not None:
            main.signal(signal.SIGKILL)
            self.end()
        for each in self.processes:
            each.signal(signal.SIGKILL)


def _is_rays_own(process: Process) -> bool:
    return process.words[0].strip() in _AGENTS or any(word.endswith(_STARTED) for word in process.words)


def _is_worker(process: Process) -> bool:
    return any(_WORKER in word for word in process.words)
