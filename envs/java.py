"""The Java process that a simulator runs in: found, started, and ended for certain."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from typing import Any

from agentdistill import child
from agentdistill.errors import UserError

INSTALL = "sudo apt-get install -y openjdk-17-jre-headless"
_OPTIONS = (
    # Objects are listed in the order of their hash codes, which Java makes up anew at every load; with one for all, things are
    # listed in the order they were made in, and the same task gives the same bytes.
    "-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2",
    # The default collector takes a thread for every core, and lets the heap grow to gigabytes.
    "-XX:+UseSerialGC", "-Xmx512m",
)  # fmt: skip
# Becomes the Java process itself, after asking Linux to kill it when this process ends, however that comes about. Elsewhere
# `--die-on-broken-pipe` does it, as long as no fork holds the pipe open.
_END_WITH_PARENT = """
import ctypes, os, sys
try:
    ctypes.CDLL(None).prctl(1, 9)
except AttributeError:
    pass
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class Simulator:
    """What runs in a Java process.

    Attributes:
        name: what errors call it.
        package: the Python package whose `constants` name its folder (`BASEPATH`) and jar (`JAR_PATH`).
        extra: the extra of `agentdistill` that installs the package.
        interface: the Java class that is made one of and talked to.
    """

    name: str
    package: str
    extra: str
    interface: str


def find_java() -> str | None:
    """Path of the `java` command: that of `JAVA_HOME` if it is set, else the first on the PATH."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(os.path.join(home, "bin", "java") if home else "java")


def needs_java() -> str:
    """What to install where there is no Java (a `registration.Requirement`)."""
    return "" if find_java() else f"needs Java: {INSTALL}"


def require_java(name: str) -> str:
    """Path of the `java` command, or a `UserError` that says how to get it for the simulator of this name."""
    java = find_java()
    if java is None:
        raise UserError(f"{name} needs Java, and there is no 'java' command; install it with: {INSTALL}")
    return java


class Java:
    """A Java process with a simulator in it, and the connection to it. It ends with `close`, with the last reference to
    this object, and with this process.

    Attributes:
        server: the simulator's interface; its calls return text, numbers and Java objects.

    Raises:
        UserError: when Java or the simulator's package is missing, or Java does not start.
    """

    def __init__(self, simulator: Simulator) -> None:
        java = require_java(simulator.name)
        try:
            from py4j.java_gateway import GatewayParameters, JavaGateway, find_jar_path

            constants = importlib.import_module(f"{simulator.package}.constants")
        except ImportError as error:
            install = f"pip install 'agentdistill[{simulator.extra}]'"
            raise UserError(f"{simulator.name} needs the {simulator.extra} package; install it with: {install}") from error
        command = [java, *_OPTIONS, "-cp", os.pathsep.join((find_jar_path(), constants.JAR_PATH)), "py4j.GatewayServer"]
        process = child.spawn(
            [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), *command, "--die-on-broken-pipe", "0"],
            cwd=constants.BASEPATH,  # they read tables there, and elsewhere one would write one
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._process = process
        self.close = weakref.finalize(self, _end, process, os.getpid())
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port.isdigit():
            self.close()
            raise UserError(f"Java at '{java}' did not start (exit code {process.returncode}); install OpenJDK 17: {INSTALL}")
        threading.Thread(target=_drain, args=(process.stdout,), daemon=True).start()
        # Without memory management, or collected Python objects would talk to a Java process that has ended. The
        # Java objects that is asked for is let go by hand.
        parameters = GatewayParameters(port=int(port), auto_convert=False, enable_memory_management=False)
        self._gateway: Any = JavaGateway(gateway_parameters=parameters)
        self.server: Any = self.make(simulator.interface)

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ends(self) -> bool:
        """Whether the process is about to end or has ended, which takes some time after its connections broke."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        return not self.alive

    def texts(self, java_list: Any) -> tuple[str, ...]:
        """The strings in a Java list or array, which is then let go."""
        found = tuple(str(each) for each in java_list)
        self.let_go(java_list)
        return found

    def make(self, name: str, *arguments: Any) -> Any:
        """An object of a Java class, which stays until it is let go."""
        made: Any = self._gateway.jvm
        for part in name.split("."):
            made = getattr(made, part)
        return made(*arguments)

    def let_go(self, *java_objects: Any) -> None:
        """Forget Java objects, which then can be collected there."""
        for each in java_objects:
            self._gateway.detach(each)


def _drain(output: Any) -> None:
    """Read what the simulator prints; it would stand still with a full pipe."""
    with contextlib.suppress(OSError, ValueError):
        while output.read1(65_536):
            pass


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if owner != os.getpid():  # a fork has no say in it
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
    process.wait()
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
