"""The `docker` backend: one container a session from a warm pool, reached over its attached stream.

A container has no network, a read-only root file system, tmpfs on /work, /tmp and /dev/shm, no capabilities, no new
privileges, its own process tree, and hard limits on processes and memory. It is used for one interpreter and removed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentdistill.errors import UserError
from agentdistill.tools.sandbox import image as images
from agentdistill.tools.sandbox.base import Limits, SandboxError
from agentdistill.tools.sandbox.cgroup import Cgroup
from agentdistill.tools.sandbox.docker_channel import DockerChannel
from agentdistill.tools.sandbox.host import Fate, Interpreter, Usage
from agentdistill.tools.sandbox.hosted import HostedSandbox

LABEL = "agentdistill.sandbox"
_HERE = Path(__file__).parent
_BRIDGE = (_HERE / "bridge.py").read_text(encoding="utf-8")
_RUNNER = (_HERE / "runner.py").read_text(encoding="utf-8")
_SECCOMP = (_HERE / "seccomp.py").read_text(encoding="utf-8")
_KILL_SECONDS = 1.0  # the daemon's answer is waited for; the signal itself takes milliseconds
_SPARE_BYTES = 64 << 20  # process 1 and the kernel's own, above what the host watches for
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HOME": "/work", "TMPDIR": "/work"}


class DockerSandbox(HostedSandbox):
    """See `Sandbox`.

    Args:
        limits: of sessions that are opened without any.
        image: an image at the daemon that has a `python` of 3.11 or later; None for one made of this interpreter.
        warm: containers kept ready; each holds about 15 MiB.

    Raises:
        UserError: when the docker SDK is missing, no daemon answers, or the image is not there.
        SandboxError: when the image cannot be made.
    """

    name = "docker"

    def __init__(self, limits: Limits | None = None, *, image: str | None = None, warm: int = 2) -> None:
        self.client = connect()
        self.image = images.ensure(self.client) if image is None else _present(self.client, image)
        super().__init__(limits)
        self._warm = warm
        self._ready: dict[Limits, deque[Future[_Container]]] = {}
        self._workers = ThreadPoolExecutor(4, thread_name_prefix="agentdistill-docker")
        self._enders = ThreadPoolExecutor(4, thread_name_prefix="agentdistill-docker-end")  # no kill waits for a start
        self._closed = False
        sweep(self.client)

    def close(self) -> None:
        """See `Sandbox.close`."""
        with self._lock:
            self._closed = True
            waiting = [each for ready in self._ready.values() for each in ready]
            self._ready.clear()
        super().close()
        for each in waiting:
            if not each.cancel():
                _discard(each)
        self._workers.shutdown(wait=True)
        self._enders.shutdown(wait=True)
        self.client.close()

    def _start(self, limits: Limits) -> Interpreter:
        """A ready container of this shape, and another one in the making for the next call."""
        shape = _shape(limits)
        with self._lock:
            if self._closed:
                raise SandboxError("the docker sandbox is closed")
            ready = self._ready.setdefault(shape, deque())
            taken = ready.popleft() if ready else None
            others = [each for other, each in self._ready.items() if other != shape]
            while len(ready) < self._warm:
                ready.append(self._workers.submit(self._make, shape))
            # Containers of shapes no longer asked for would stay for ever.
            idle = [each for other in others for each in other]
            for other in others:
                other.clear()
        for each in idle:
            self._workers.submit(_discard, each)
        return self._make(shape) if taken is None else taken.result()

    def _make(self, shape: Limits) -> _Container:
        import docker.errors
        import requests.exceptions

        try:
            return _Container(self.client, self.image, shape, self._end)
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            raise SandboxError(f"the Docker daemon did not start a container: {error}") from error

    def _end(self, end: Callable[[], None]) -> None:
        """End a container in the background, or at once when the pool is closed."""
        try:
            self._enders.submit(end)
        except RuntimeError:
            end()


class _Container:
    """A container with a runner in it: an `Interpreter`."""

    def __init__(self, client: Any, image: str, limits: Limits, later: Callable[[Callable[[], None]], None]) -> None:
        self._api, self._later = client.api, later
        self._killed, self._dead = False, threading.Event()
        self._id: str = self._api.create_container(image, **_settings(self._api, limits))["Id"]
        try:
            attached = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            self.channel: DockerChannel = DockerChannel(self._api.attach_socket(self._id, attached))
            self._api.start(self._id)
            pid = self._api.inspect_container(self._id)["State"]["Pid"]
        except BaseException:
            self.kill()
            raise
        self._cgroup = Cgroup.of(pid)

    def usage(self) -> Usage | None:
        """See `Interpreter.usage`: from the container's control group, or from the daemon where that is elsewhere."""
        if self._cgroup is not None:
            return self._cgroup.usage()
        with contextlib.suppress(Exception):
            stats = self._api.stats(self._id, stream=False, one_shot=True)
            used, memory = stats["cpu_stats"]["cpu_usage"]["total_usage"], stats["memory_stats"]
            return Usage(used / 1e9, memory["stats"].get("rss", memory["stats"].get("anon", memory["usage"])))
        return None

    def fate(self) -> Fate:
        """See `Interpreter.fate`."""
        try:
            state = self._api.inspect_container(self._id)["State"]
        except Exception as error:
            return Fate(f"the Docker daemon lost the container ({error})", ours=True)
        if state.get("OOMKilled") or (self._cgroup is not None and self._cgroup.out_of_memory()):
            return Fate("it was killed by the kernel for its memory", memory=True)
        if self.channel.fate:
            return Fate(self.channel.fate.decode("utf-8", "backslashreplace"))
        # Process 1 always says how the runner ended, so it came to harm itself, or did not start.
        complaint = self.channel.complaint.decode("utf-8", "backslashreplace").strip().rpartition("\n")[2]
        return Fate(complaint or state.get("Error") or f"its container ended with code {state.get('ExitCode')}", ours=True)

    def kill(self) -> None:
        """See `Interpreter.kill`."""
        if not self._killed:
            self._killed = True
            self._later(self._end)
            # Where output is unread, the daemon kills at once but answers only when the channel is closed, which comes next.
            self._dead.wait(_KILL_SECONDS)

    def _end(self) -> None:
        with contextlib.suppress(Exception):  # it may be gone already
            self._api.kill(self._id)
        self._dead.set()
        with contextlib.suppress(Exception):
            self._api.remove_container(self._id, force=True, v=True)


def connect() -> Any:
    """A `docker.DockerClient` of the daemon that DOCKER_HOST, or Docker's default, names.

    Raises:
        UserError: when the SDK is missing or no daemon answers.
    """
    try:
        import docker
        import docker.errors
    except ImportError as error:
        raise UserError("the sandbox 'docker' needs the Docker SDK: pip install 'agentdistill[docker]'") from error
    import os

    try:
        client = docker.from_env(max_pool_size=64, timeout=60)
        client.ping()
    except Exception as error:
        where = os.environ.get("DOCKER_HOST", "Docker's default socket")
        raise UserError(f"no Docker daemon answers at {where}: start one, or set DOCKER_HOST ({_short(error)})") from error
    return client


def sweep(client: Any) -> int:
    """Remove containers of sandboxes on this machine whose process is gone; how many there were."""
    removed = 0
    for each in client.containers.list(all=True, filters={"label": LABEL}, sparse=True):
        owner = each.attrs.get("Labels", {}).get(LABEL, "")
        machine, _, process = owner.partition("/")
        if machine == _machine() and not _alive(process):
            with contextlib.suppress(Exception):
                each.remove(force=True, v=True)
                removed += 1
    return removed


def _settings(api: Any, limits: Limits) -> dict[str, Any]:
    """Arguments of `create_container`."""
    runner_limits = {
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }
    memory = limits.session_memory_bytes + limits.disk_bytes + _SPARE_BYTES
    shares = {"/work": 2, "/tmp": 4, "/dev/shm": 4}  # halves and quarters of what a session may store
    tmpfs = {
        path: f"rw,nosuid,nodev,noexec,mode=1777,size={limits.disk_bytes // part},nr_inodes={limits.disk_inodes // part}"
        for path, part in shares.items()
    }
    host = api.create_host_config(
        network_mode="none",
        read_only=True,
        tmpfs=tmpfs,
        pids_limit=limits.processes + 1,  # and process 1
        mem_limit=memory,
        memswap_limit=memory,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        log_config={"Type": "none"},
        restart_policy={"Name": "no"},
        ipc_mode="private",
    )
    return {
        "entrypoint": ["python", "-I", "-c", _BRIDGE, _RUNNER, json.dumps(runner_limits), _SECCOMP],
        "command": [],
        "user": "65534:65534",
        "working_dir": "/work",
        "environment": _ENVIRONMENT,
        "stdin_open": True,
        "tty": False,
        "network_disabled": True,
        "labels": {LABEL: f"{_machine()}/{_process()}"},
        "host_config": host,
    }


def _shape(limits: Limits) -> Limits:
    """What of the limits a container is made with; the host sees to the rest."""
    plain = Limits()
    free = ("cpu_seconds", "wall_seconds", "output_bytes", "output_kill_bytes", "source_bytes", "repr_chars")
    return replace(limits, **{name: getattr(plain, name) for name in free})


def _discard(container: Future[_Container]) -> None:
    with contextlib.suppress(SandboxError):
        made = container.result()
        made.kill()
        made.channel.close()


def _present(client: Any, name: str) -> str:
    import docker.errors

    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        raise UserError(f"the Docker daemon has no image '{name}'; pull or build it, or leave the option out") from None
    return name


def _machine() -> str:
    """This machine since its last start."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _process() -> str:
    """This process, not to be mistaken for a later one with its number."""
    import os

    return f"{os.getpid()}.{_started(os.getpid())}"


def _alive(process: str) -> bool:
    number, _, started = process.partition(".")
    return number.isdigit() and _started(int(number)) == started


def _started(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _short(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
