"""Process 1 of a container: starts the runner and carries its three streams over the container's one attached stream.

It runs where this package is not, as text: `python -I -c "$bridge" "$runner" "$limits" "$seccomp"`, and imports only the
standard library.
Its stdin goes to the runner's control socket byte by byte. Its stdout is records of what the runner wrote: a byte that names
the stream (`STREAMS`), u32 length, data; a record without data says that the stream has ended, and a last one in FATE how the
runner ended. Process 1 cannot be killed or traced from inside, so the source cannot speak for it. When it ends, all end.
"""

import contextlib
import ctypes
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import types

RECORD = struct.Struct("<BI")
STREAMS = ("control", "stdout", "stderr")
FATE = 3
DRAIN = 64  # chunks read after the runner's end; its children may go on writing
CHUNK = 1 << 16
CONTROL = 3  # the runner's descriptor


def main(runner: str, limits: "dict[str, int]", seccomp: str) -> None:
    """Start the runner and carry until it is gone and what it wrote is told, or until the host hangs up."""
    _set_dumpable(0)
    ours, theirs = socket.socketpair()
    out, err, wake = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _become_runner(runner, limits, seccomp, theirs.fileno(), out[1], err[1])
        finally:
            os._exit(71)
    theirs.close()
    os.close(out[1])
    os.close(err[1])
    os.set_blocking(wake[1], False)
    signal.set_wakeup_fd(wake[1], warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    _carry(pid, ours, {out[0]: 1, err[0]: 2}, wake[0])


def _become_runner(source: str, limits: "dict[str, int]", seccomp: str, control: int, out: int, err: int) -> None:
    nothing = os.open("/dev/null", os.O_RDONLY)
    for number, descriptor in enumerate((nothing, out, err, control)):
        os.dup2(descriptor, 100 + number)
    for number in range(CONTROL + 1):
        os.dup2(100 + number, number)
    os.closerange(CONTROL + 1, 256)
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _set_dumpable(1)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # where memory is short, the kernel ends this process and not process 1
    # Docker's own profile leaves open what a session here never needs, such as sockets to the hypervisor. No TCP either:
    # not every kind of control group counts what its buffers hold.
    _module("seccomp", seccomp).install(sockets=False)
    _module("runner", source).serve(CONTROL)


def _module(name: str, source: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)
    return module


def _set_dumpable(value: int) -> None:
    """Without it, processes of the same user can neither trace this one nor open its descriptors."""
    if ctypes.CDLL(None, use_errno=True).prctl(4, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel refused PR_SET_DUMPABLE")


def _carry(runner: int, control: socket.socket, outputs: "dict[int, int]", wake: int) -> None:
    """Until the runner's end, which is seen by waiting for it: its children may hold its descriptors open."""
    selector = selectors.DefaultSelector()
    for descriptor in (0, wake, control.fileno(), *outputs):
        selector.register(descriptor, selectors.EVENT_READ)
    fate = _reap(runner)
    while fate is None:
        ready = {key.fd for key, _ in selector.select()}
        if 0 in ready:
            data = os.read(0, CHUNK)
            if not data:
                return
            _send(control, data)
        answered = control.fileno() in ready
        # Output before answers, so that what was printed before an answer is told before it.
        for descriptor, kind in outputs.items():
            if (answered or descriptor in ready) and _pass_on(descriptor, kind) == "":
                _forget(selector, descriptor)
        if answered and _pass_on(control.fileno(), 0) == "":
            _forget(selector, control.fileno())
        if wake in ready:
            os.read(wake, CHUNK)
            fate = _reap(runner)
    for descriptor, kind in outputs.items():
        for _ in range(DRAIN):
            if not _pass_on(descriptor, kind):
                break
    _record(FATE, fate.encode())
    _pass_on(control.fileno(), 0)
    _record(0, b"")


def _forget(selector: selectors.BaseSelector, descriptor: int) -> None:
    if descriptor in selector.get_map():
        selector.unregister(descriptor)


def _reap(runner: int) -> "str | None":
    """Wait for every process that has ended, orphans too; how the runner did, if it is one of them."""
    fate = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return fate or "it is gone"
        if pid == 0:
            return fate
        if pid == runner and os.WIFSIGNALED(status):
            fate = f"it was killed by signal {os.WTERMSIG(status)}"
        elif pid == runner:
            fate = f"it exited with code {os.WEXITSTATUS(status)}"


def _pass_on(descriptor: int, kind: int) -> "str | None":
    """Carry what there is: "some", None where there is nothing now, "" at the stream's end."""
    os.set_blocking(descriptor, False)
    try:
        data = os.read(descriptor, CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        data = b""
    if data:
        _record(kind, data)
    return "some" if data else ""


def _record(kind: int, data: bytes) -> None:
    record = RECORD.pack(kind, len(data)) + data
    while record:
        record = record[os.write(1, record) :]


def _send(control: socket.socket, data: bytes) -> None:
    """To the runner, which may be gone."""
    control.setblocking(True)
    with contextlib.suppress(OSError):
        control.sendall(data)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3])
