"""Child processes that run a piece of the package: started with this process's import path, and never outliving it.

They are new interpreters and not forks. A fork copies locks that torch's, OpenMP's or a JVM's threads hold at that moment and
that nobody in the copy will ever release.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

_PR_SET_PDEATHSIG = 1


def start(
    code: str,
    *arguments: str,
    link: socket.socket,
    output: int = subprocess.DEVNULL,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Run Python code in a session of its own, where no Ctrl-C of this process's terminal reaches it.

    Args:
        code: gets the descriptor of `link`, this process's id, and `arguments` as `sys.argv[1:]`.
        link: inherited under the same number; the caller closes its own.
        output: descriptor, or `subprocess` constant, for what the child prints, errors included.
        variables: of the environment, beside this process's.

    Raises:
        OSError: when no process can be started; RuntimeError while this interpreter is shutting down.
    """
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    words = [sys.executable, "-P", "-c", code, str(link.fileno()), str(os.getpid()), *arguments]
    return spawn(
        words,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | dict(variables or {}),
        pass_fds=(link.fileno(),),
        start_new_session=True,
    )


def spawn(words: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """`subprocess.Popen(words, **options)` for a child that asks for a signal when its parent ends.

    Raises:
        OSError: when no process can be started; RuntimeError while this interpreter is shutting down.
    """
    # By a thread that lives as long as this process: Linux sends the parent-death signal when the thread that forked ends,
    # which may be long before.
    return _spawner().submit(lambda: subprocess.Popen[bytes](words, **options)).result()


def end_with(parent: int) -> bool:
    """In the child: be killed when the process `parent` ends. False where it has ended already."""
    with contextlib.suppress(AttributeError):  # Linux only; elsewhere the link's end tells the child
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def kill(process: subprocess.Popen[bytes], link: socket.socket | Connection, owner: int) -> None:
    """Close the link, and kill the child with all that it has started, unless this is a fork of the process that owns it."""
    link.close()
    if owner == os.getpid():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        process.wait()


_threads: dict[int, ThreadPoolExecutor] = {}  # by process id: a thread does not survive a fork


def _spawner() -> ThreadPoolExecutor:
    return _threads.setdefault(os.getpid(), ThreadPoolExecutor(1, thread_name_prefix="spawn-workers"))
