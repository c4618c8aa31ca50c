"""Run every attack on one backend and print what was seen, a line of JSON an attack: `python drive.py jail`.

`restricted-abi3` is `restricted` as it is on a kernel whose Landlock knows files only (Linux 6.2).

A process of its own, so that it can be started as another user and inside a container. It prepares a host worth attacking and
looks after every attack at what an attack must not touch: another process, other sessions, files, descriptors.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

# Without what the packages above import: a container has the interpreter, numpy and sympy, and no more.
for _name in ("agentdistill", "agentdistill.tools"):
    sys.modules[_name] = _package = ModuleType(_name)
    _package.__path__ = [str(Path(__file__).resolve().parents[3] / _name.replace(".", "/"))]

from attacks import ATTACKS, Attack  # noqa: E402
from herd import MARK  # noqa: E402

from agentdistill.tools.sandbox import restricted  # noqa: E402
from agentdistill.tools.sandbox.base import Limits, Result, Sandbox, Session  # noqa: E402
from agentdistill.tools.sandbox.confine import adopt_orphans  # noqa: E402
from agentdistill.tools.sandbox.open import open_sandbox  # noqa: E402

SECRET = "CANARY-5d41402abc4b"


@dataclass
class Host:
    """What stands on the host to be attacked."""

    folder: Path
    bystander: subprocess.Popen[bytes]
    words: dict[str, str] = field(default_factory=dict)
    listeners: list[socket.socket] = field(default_factory=list)
    state: object = None

    def look(self) -> object:
        """Files as they are, with owner, mode and time of each."""
        seen = {}
        for path in [self.folder, *sorted(self.folder.rglob("*"))]:
            info = path.lstat()
            text = path.read_text() if stat.S_ISREG(info.st_mode) else ""
            seen[str(path)] = (info.st_mode, info.st_uid, info.st_nlink, info.st_mtime_ns, text)
        return seen

    def harmed(self) -> Iterator[str]:
        """What an attack changed here."""
        if self.bystander.poll() is not None or _state(self.bystander.pid) == "T":
            yield "the bystander was signalled"
            self.bystander = _bystander(self.words)
        if (
            os.getpriority(os.PRIO_PROCESS, self.bystander.pid)
            or len(os.sched_getaffinity(self.bystander.pid)) < os.cpu_count()
        ):  # type: ignore[operator]
            yield "the bystander was tuned"
        now = self.look()
        if now != self.state:
            yield f"files on the host changed: {set(now.items()) ^ set(self.state.items())}"  # type: ignore[attr-defined]
            self.state = now
        for listener in self.listeners:
            with contextlib.suppress(BlockingIOError):
                listener.accept() if listener.type == socket.SOCK_STREAM else listener.recv(1)
                yield f"something reached the host's socket {listener.getsockname()}"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _bystander(words: dict[str, str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(3600)"], start_new_session=True)
    words["bystander"] = str(process.pid)
    return process


@contextlib.contextmanager
def prepared() -> Iterator[Host]:
    """The host, and nothing of it afterwards."""
    os.environ["AGENTDISTILL_TEST_SECRET"] = SECRET
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        words = {"pid": str(os.getpid()), "abstract": f"agentdistill-{os.getpid()}"}
        for part, mode in (("outside", 0o777), ("private", 0o755)):
            (folder / part).mkdir()
            (folder / part).chmod(mode)
            words[part] = str(folder / part)
        (folder / "private" / "canary").write_text(SECRET)
        host = Host(folder, _bystander(words), words)
        for family, kind, address in (
            (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            (socket.AF_UNIX, socket.SOCK_STREAM, "\0" + words["abstract"]),
            (socket.AF_UNIX, socket.SOCK_DGRAM, "\0" + words["abstract"] + "-datagrams"),
            (socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "outside" / "listener")),
        ):
            listener = socket.socket(family, kind)
            listener.bind(address)
            listener.setblocking(False)
            if kind == socket.SOCK_STREAM:
                listener.listen()
            host.listeners.append(listener)
        words["port"] = str(host.listeners[0].getsockname()[1])
        (folder / "outside" / "listener").chmod(0o777)
        host.state = host.look()
        try:
            yield host
        finally:
            host.bystander.kill()
            host.bystander.wait()
            for listener in host.listeners:
                listener.close()


def filled(source: str, words: dict[str, str]) -> str:
    """The source with what stands for its words."""
    return re.sub(r"@(\w+)@", lambda match: words[match[1]], source)


def sibling(sandbox: Sandbox, words: dict[str, str]) -> Session:
    """Another session, with a name and a file to lose."""
    session = sandbox.open()
    made = session.run(
        "import os\nsecret = 'SIBLING' + '-7'\nn = open('secret', 'w').write(secret)\nprint(os.getpid(), os.getcwd())"
    )
    pid, folder = made.stdout.split()
    # Where a session counts its processes from 1, its numbers mean nothing to another; they are tried all the same.
    words.update(sibling_pid=pid, sibling_folder=folder)
    return session


def attacked(attack: Attack, sandbox: Sandbox, host: Host, other: Session) -> dict[str, Any]:
    """Run one attack; `wrong` is a list of what went wrong, empty where the sandbox held."""
    wrong: list[str] = []
    started = time.monotonic()
    session = sandbox.open(replace(Limits(), **attack.limits))
    try:
        if attack.keeps:
            session.run("kept_name = 1")
        result = session.run(filled(attack.source, host.words))
        time.sleep(attack.pause)
        wrong += judged(attack, result)
        if attack.keeps and session.run("kept_name").value != "1":
            wrong.append("the session lost its names")
        if attack.then:
            if attack.fresh:
                session.close()
                session = sandbox.open()
            after = session.run(attack.then)
            if (after.value or after.stdout.strip()) != attack.answers or "LATE" in after.stdout:
                wrong.append(f"the next call gave {short(after)}")
        elif session.run("1").status == "sandbox_error":
            wrong.append("the session answers no more")
    finally:
        session.close()
    if attack.name == "daemon" and not _gone("addaemon", 2.0):
        wrong.append("the daemon outlived its session")
    wrong += host.harmed()
    if other.run("secret, open('secret').read()").value != "('SIBLING-7', 'SIBLING-7')":
        wrong.append("another session was hurt")
    return {
        "name": attack.name,
        "status": str(result.status),
        "wrong": wrong,
        "result": short(result),
        "seconds": round(time.monotonic() - started, 2),
    }


def judged(attack: Attack, result: Result) -> Iterator[str]:
    """What a result should not have been."""
    texts = [result.stdout, result.stderr, result.value or "", result.error]
    if result.status not in attack.status.split():
        yield f"ended as {result.status}, not as {attack.status}"
    if "BREACH" in result.stdout:
        yield "breach: " + "; ".join(line for line in result.stdout.splitlines() if "BREACH" in line)[:500]
    if attack.shows and not any(re.search(attack.shows, text) for text in texts):
        yield f"no text shows {attack.shows}"
    if any(len(text) > attack.longest for text in texts[:2]) or len(texts[2]) > 9000 or len(texts[3]) > 2000:
        yield f"texts of {[len(text) for text in texts]} characters"
    for text in texts:
        text.encode()  # raises for lone surrogates, which no file of ours could hold
    if result.status in {"crashed", "timeout", "output_limit", "protocol_error"} and not result.state_lost:
        yield "the loss of the session's names was not said"


def short(result: Result) -> str:
    """For a report."""
    texts = f"{result.value!r:.60} {result.stdout[:200]!r} {result.stderr[-200:]!r} {result.error[:200]!r}"
    return f"{result.status}: {texts} {result.cpu_seconds:.2f}s"


def _gone(name: str, seconds: float) -> bool:
    """Whether no process of that name is left, after at most so long."""
    deadline = time.monotonic() + seconds
    while any(_comm(path) == name for path in Path("/proc").glob("[0-9]*/comm")):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _comm(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def left(folder: Path, backend: str) -> list[str]:
    """Processes, files and containers that a closed sandbox left behind; the first are this process's, as their subreaper."""
    pids: list[str] = []
    for _ in range(100):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not pids:
            break
        time.sleep(0.05)
    commands = [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:200] for pid in pids]
    found = [f"processes: {commands}"] * bool(pids) + [str(path) for path in folder.iterdir()]
    return [*found, *containers()] if backend == "docker" else found


def containers() -> list[str]:
    """Containers that a sandbox of this process made."""
    from agentdistill.tools.sandbox import docker

    client = docker.connect()
    owner = {"label": f"{docker.LABEL}={docker._machine()}/{docker._process()}"}
    found = [f"container {each.short_id}" for each in client.containers.list(all=True, filters=owner, sparse=True)]
    client.close()
    return found


def main(backend: str, *only: str) -> None:
    """Drive the attacks on a backend, all or those named."""
    adopt_orphans()
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o711)
        os.environ["TMPDIR"] = tempfile.tempdir = name
        attack_all(backend, only)
        print(json.dumps({"name": "leaves nothing behind", "status": "", "wrong": left(Path(name), backend)}), flush=True)


def opened(backend: str) -> Sandbox:
    """The sandbox of that name."""
    name, _, abi = backend.partition("-abi")
    if abi:
        older = f"from agentdistill.tools.sandbox import landlock\nlandlock.abi = lambda: {int(abi)}\nfrom agent"
        restricted._BOOTSTRAP = restricted._BOOTSTRAP.replace("from agent", older, 1)
    if name == "docker" and MARK in os.environ:
        from agentdistill.tools.sandbox import docker

        docker._ENVIRONMENT[MARK] = os.environ[MARK]  # a daemon's processes are not this one's, and would not be found
    return open_sandbox(name)


def attack_all(backend: str, only: tuple[str, ...]) -> None:
    """Open the sandbox, run the attacks, close it."""
    with prepared() as host:
        sandbox = opened(backend)
        try:
            print(json.dumps({"name": "capabilities", **sandbox.probe().as_dict()}), flush=True)
            other = sibling(sandbox, host.words)
            for attack in ATTACKS:
                if only and attack.name not in only:
                    continue
                try:
                    line = attacked(attack, sandbox, host, other)
                except Exception as error:
                    line = {"name": attack.name, "status": "raised", "wrong": [f"{type(error).__name__}: {error}"]}
                if any("another session" in each for each in line["wrong"]):
                    other.close()
                    other = sibling(sandbox, host.words)
                print(json.dumps(line), flush=True)
            other.close()
        finally:
            sandbox.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
