"""The Java process that the simulator runs in: found, started, and ended for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from typing import Any

from agentdistill import child
from agentdistill.envs.java import INSTALL, find_java
from agentdistill.errors import UserError

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


class Java:
    """A Java process with the simulator in it, and the connection to it. It ends with `close`, with the last reference to
    this object, and with this process.

    Attributes:
        server: the simulator's `PythonInterface`; its calls return text, numbers and Java objects.

    Raises:
        UserError: when Java or the scienceworld package is missing, or Java does not start.
    """

    def __init__(self) -> None:
        java = find_java()
        if java is None:
            raise UserError(f"ScienceWorld needs Java, and there is no 'java' command; install it with: {INSTALL}")
        try:
            from py4j.java_gateway import GatewayParameters, JavaGateway, find_jar_path
            from scienceworld.constants import BASEPATH, JAR_PATH
        except ImportError as error:
            what = "ScienceWorld needs the scienceworld package; install it with: pip install 'agentdistill[scienceworld]'"
            raise UserError(what) from error
        command = [java, *_OPTIONS, "-cp", os.pathsep.join((find_jar_path(), JAR_PATH)), "py4j.GatewayServer"]
        process = child.spawn(
            [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), *command, "--die-on-broken-pipe", "0"],
            cwd=BASEPATH,  # it reads a table there, and elsewhere would write one
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
        # Without memory management, or collected Python objects would talk to a Java process that has ended. The one kind
        # of Java object that is asked for is let go by hand (see `texts`).
        parameters = GatewayParameters(port=int(port), auto_convert=False, enable_memory_management=False)
        self._gateway: Any = JavaGateway(gateway_parameters=parameters)
        self.server: Any = self._gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface()

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
        """The strings in a Java list, which is then let go."""
        found = tuple(str(each) for each in java_list)
        self._gateway.detach(java_list)
        return found


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
