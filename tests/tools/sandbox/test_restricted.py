"""The sandbox without namespaces: files, limits between calls, deaths of our own processes, and what is left."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentdistill.tools.sandbox import landlock, restricted_zygote
from agentdistill.tools.sandbox.base import CAPABILITIES, Limits, SandboxError, Status
from agentdistill.tools.sandbox.restricted import RestrictedSandbox
from tests.needs import missing

if not landlock.abi():
    missing("this kernel has no Landlock")

LIMITS = Limits(cpu_seconds=2.0, wall_seconds=20.0, processes=8, disk_bytes=16 << 20, disk_inodes=200)
# A child that outlives its parent, session and process group and ignores what can be ignored; its number is the value.
DAEMON = """
import os, signal, time
reading, writing = os.pipe()
if not os.fork():
    os.setsid()
    for number in range(1, 32):
        if number not in (9, 19): signal.signal(number, signal.SIG_IGN)
    if not os.fork():
        os.write(writing, str(os.getpid()).encode())
        while True: time.sleep(1)
    os._exit(0)
n = os.wait()
int(os.read(reading, 20))
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RestrictedSandbox]:
    made = RestrictedSandbox(LIMITS)
    yield made
    made.close()


@pytest.fixture
def session(sandbox: RestrictedSandbox) -> Iterator[Any]:
    made = sandbox.open()
    yield made
    made.close()


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def guard(session: Any) -> int:
    return int(session._interpreter._init)


def zygote(sandbox: RestrictedSandbox) -> psutil.Process:
    assert sandbox._zygote is not None
    return psutil.Process(sandbox._zygote.pid)


def folder(sandbox: RestrictedSandbox) -> Path:
    return Path(str(sandbox.holds["folder"]))


def files(sandbox: RestrictedSandbox) -> list[Path]:
    """What is in the sessions' folder besides its lock."""
    return [path for path in folder(sandbox).iterdir() if path.name != "lock"]


def test_all_but_the_machines_process_numbers_is_probed_to_hold(sandbox: RestrictedSandbox) -> None:
    assert sandbox.probe().holds == set(CAPABILITIES) - {"pids"}
    assert "process ids" in sandbox.probe().missing["pids"]


def test_files_are_made_read_listed_moved_and_removed(session: Any) -> None:
    source = """
import json, os, pathlib, shutil, tempfile
os.makedirs("a/b")
pathlib.Path("a/b/file").write_text("text")
os.rename("a/b/file", "a/moved")
os.symlink("moved", "a/link"); os.link("a/moved", "a/hard")
with tempfile.TemporaryDirectory() as name: pathlib.Path(name, "x").touch()
shutil.copy("a/moved", "copy")
found = sorted(str(path.relative_to(".")) for path in pathlib.Path(".").rglob("*"))
texts = {open(each).read() for each in ("a/moved", "a/link", "a/hard", "copy")}
shutil.rmtree("a"); os.remove("copy")
found, texts, os.listdir(), tempfile.gettempdir() == os.getcwd() == os.path.expanduser("~")
"""
    assert session.run(source).value == "(['a', 'a/b', 'a/hard', 'a/link', 'a/moved', 'copy'], {'text'}, [], True)"


def test_a_touched_file_is_made_and_one_that_is_there_stays_as_it_is(session: Any) -> None:
    source = "import pathlib, shutil\npath = pathlib.Path('file'); path.touch(); path.write_text('text'); path.touch()\n"
    assert session.run(source + "shutil.copy2('file', 'copy'); pathlib.Path('copy').read_text()").value == "'text'"
    assert session.run("import os; os.utime('nowhere')").status is Status.ERROR


def test_files_are_there_for_the_next_call_and_for_no_other_session(sandbox: RestrictedSandbox, session: Any) -> None:
    place = session.run("import os\nn = open('kept', 'w').write('mine'); os.path.abspath('kept')").value
    assert session.run("open('kept').read()").value == "'mine'"
    other = sandbox.open()
    assert other.run(f"open({place})").error.startswith("PermissionError")
    assert other.run("import os; os.listdir()").value == "[]"
    other.close()


def test_names_and_paths_longer_than_the_kernel_takes_are_an_error_and_the_session_goes_on(session: Any) -> None:
    assert session.run("n = open('x' * 255, 'w').write('longest'); open('x' * 255).read()").value == "'longest'"
    assert "File name too long" in session.run("open('x' * 256, 'w')").error
    assert "File name too long" in session.run("open('./' * 2100 + 'x', 'w')").error
    assert "embedded null" in session.run(r"open('x\0y', 'w')").error
    assert session.run("import os; [len(name) for name in os.listdir()]").value == "[255]"


def test_a_file_larger_than_it_may_be_is_refused(sandbox: RestrictedSandbox) -> None:
    session = sandbox.open(Limits(file_bytes=1 << 20))
    assert "File too large" in session.run("open('large', 'wb').write(bytes(2 << 20))").error
    assert session.run("import os; os.path.getsize('large') <= 1 << 20").value == "True"
    session.close()


def test_more_descriptors_than_allowed_are_refused(sandbox: RestrictedSandbox) -> None:
    session = sandbox.open(Limits(open_files=40))
    assert "Too many open files" in session.run("held = [open('/dev/null') for _ in range(50)]").error
    session.close()


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        ("for i in range(20): open(f'f{i}', 'wb').write(bytes(1 << 20))", "its files hold more than 16 MiB"),
        ("for i in range(300): open(f'f{i}', 'w').close()", "more than 200 files"),
        ("held = [open('f', 'wb') for _ in range(3) if not os.path.exists('f') or not os.remove('f')]\n"
         "for each in held: each.write(bytes(7 << 20)); each.flush()", "its files hold more than 16 MiB"),
        ("import ctypes; call = ctypes.CDLL(None).mmap\n"
         "call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]\n"
         "for _ in range(20):\n"
         "    n = open('f', 'wb').write(bytes(1 << 20)); f = os.open('f', 0)\n"
         "    call(None, 4096, 1, 1, f, 0); os.close(f); os.remove('f')", "its files hold more than 16 MiB"),
    ],
    ids=["size", "number", "deleted files", "mapped files"],
)  # fmt: skip
def test_limits_hold_for_what_goes_on_between_two_calls(session: Any, work: str, reason: str) -> None:
    inside = "\n    ".join(work.splitlines())
    started = session.run(
        f"import os, threading, time\ndef later():\n    time.sleep(0.3)\n    {inside}\n    time.sleep(30)\n"
        "threading.Thread(target=later, daemon=True).start()"
    )
    assert (started.status, started.state_lost) == (Status.OK, False)
    pid = guard(session)
    wait_until(lambda: not alive(pid))
    result = session.run("1 + 1")
    assert (result.status, result.state_lost, result.value) == (Status.CRASHED, True, None)
    assert reason in result.error
    assert "so that this one did not run" in result.error
    assert session.run("1 + 1").value == "2"


def test_memory_that_a_thread_takes_between_two_calls_is_a_memory_status(sandbox: RestrictedSandbox) -> None:
    session = sandbox.open(Limits(session_memory_bytes=200 << 20))
    session.run(
        "import threading, time\nheld = []\ndef later():\n    time.sleep(0.1)\n    held.append(b'x' * (400 << 20))\n"
        "    time.sleep(30)\nthreading.Thread(target=later, daemon=True).start()"
    )
    pid = guard(session)
    wait_until(lambda: not alive(pid))
    result = session.run("1 + 1")
    assert (result.status, result.state_lost) == (Status.MEMORY, True)
    assert session.run("1 + 1").value == "2"
    session.close()


def test_processes_above_the_number_allowed_cannot_stay(session: Any) -> None:
    result = session.run("import os, time\nfor _ in range(40):\n    if os.fork() == 0: time.sleep(60)\ntime.sleep(5); 'passed'")
    assert result.status in {Status.ERROR, Status.CRASHED}
    assert session._interpreter is None or len(psutil.Process(guard(session)).children(recursive=True)) <= LIMITS.processes


def test_a_session_whose_guard_is_killed_is_our_failure_and_is_repeated_only_where_no_names_are_lost(
    sandbox: RestrictedSandbox,
) -> None:
    used, fresh = sandbox.open(), sandbox.open()
    used.run("x = 1")
    for session in (used, fresh):
        below = psutil.Process(guard(session)).children(recursive=True)
        os.kill(guard(session), signal.SIGKILL)
        wait_until(lambda below=below: not any(alive(each.pid) for each in below))
    lost = used.run("x")
    assert (lost.status, lost.value, lost.state_lost) == (Status.SANDBOX_ERROR, None, True)
    assert fresh.run("1 + 1").value == "2"
    assert used.run("'x' in globals()").value == "False"
    used.close()
    fresh.close()


def test_what_a_killed_guard_guarded_is_ended(sandbox: RestrictedSandbox) -> None:
    session = sandbox.open()
    daemon = int(session.run(DAEMON).value)
    assert alive(daemon)
    os.kill(guard(session), signal.SIGKILL)
    wait_until(lambda: not alive(daemon))
    session.close()
    wait_until(lambda: files(sandbox) == [])


def test_a_guard_killed_during_a_call_is_our_failure(sandbox: RestrictedSandbox) -> None:
    session = sandbox.open()
    session.run("import time, pathlib")
    pid = guard(session)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(session.run, "n = pathlib.Path('begun').touch(); time.sleep(15); 'done'")
        wait_until(lambda: any(folder(sandbox).glob("*/begun")))
        os.kill(pid, signal.SIGKILL)
        result = running.result()
    assert (result.status, result.value) == (Status.SANDBOX_ERROR, None)
    assert session.run("1 + 1").value == "2"
    session.close()


def test_a_killed_zygote_is_our_failure_and_the_next_call_has_a_new_one() -> None:
    sandbox = RestrictedSandbox(LIMITS)
    used, fresh = sandbox.open(), sandbox.open()
    daemon = int(used.run(DAEMON).value)
    first, root = zygote(sandbox), folder(sandbox)
    below = first.children(recursive=True)
    first.kill()
    wait_until(lambda: not any(alive(each.pid) for each in [first, *below]) and not alive(daemon))
    assert used.run("daemon").status is Status.SANDBOX_ERROR
    assert fresh.run("1 + 1").value == "2"
    assert used.run("1 + 2").value == "3"
    assert zygote(sandbox).pid != first.pid
    assert not root.exists()
    sandbox.close()


def test_a_session_closed_by_another_thread_ends_its_call(sandbox: RestrictedSandbox) -> None:
    session = sandbox.open()
    pid = guard(session)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(session.run, "import time, pathlib; pathlib.Path('begun').touch(); time.sleep(15); 'done'")
        wait_until(lambda: any(folder(sandbox).glob("*/begun")))
        session.close()
        result = running.result()
    assert (result.status, result.value) == (Status.SANDBOX_ERROR, None)
    assert "closed during the call" in result.error
    wait_until(lambda: not alive(pid))
    assert session.run("1").status is Status.SANDBOX_ERROR


def test_a_sandbox_closed_during_calls_ends_them_all() -> None:
    sandbox = RestrictedSandbox(LIMITS)
    process, root = zygote(sandbox), folder(sandbox)
    sessions = [sandbox.open() for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        source = "import time, pathlib; pathlib.Path('begun').touch(); time.sleep(15)"
        running = [threads.submit(each.run, source) for each in sessions]
        wait_until(lambda: len(list(root.glob("*/begun"))) == min(2, sandbox._slots.count))
        sandbox.close()
        assert {each.result().status for each in running} == {Status.SANDBOX_ERROR}
    assert not alive(process.pid)
    assert not root.exists()
    with pytest.raises(SandboxError, match="closed"):
        sandbox.open()


def test_eight_threads_have_eight_sessions_at_once(sandbox: RestrictedSandbox) -> None:
    together = threading.Barrier(8)

    def work(number: int) -> list[str | None]:
        together.wait()
        session = sandbox.open()
        session.run(f"mine = {number}\nn = open('mine', 'w').write('{number}')")
        together.wait()  # all are open now
        said = [session.run("mine, int(open('mine').read())").value for _ in range(5)]
        session.close()
        return said

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == [[f"({number}, {number})"] * 5 for number in range(8)]


def test_a_crash_in_one_session_is_nothing_to_seven_others(sandbox: RestrictedSandbox) -> None:
    crashes = {
        1: "import os; os._exit(1)",
        3: "import os; os.kill(0, 9)",
        5: "import ctypes; ctypes.string_at(0)",
        7: "import os; os.abort()",
    }

    def work(number: int) -> tuple[str, str | None]:
        session = sandbox.open()
        session.run(f"x = {number}")
        status = session.run(crashes.get(number, "x")).status
        value = session.run("x").value
        session.close()
        return status, value

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(work, range(8)))
    assert found == [("crashed", None) if number in crashes else ("ok", str(number)) for number in range(8)]


def test_a_closed_session_leaves_neither_processes_nor_files(sandbox: RestrictedSandbox) -> None:
    session = sandbox.open()
    daemon = int(session.run(DAEMON).value)
    session.run("import os\nos.makedirs('a/b'); n = open('a/b/file', 'w').write('x'); os.chmod('a/b', 0); os.chmod('a', 0)")
    left = [psutil.Process(guard(session)), *psutil.Process(guard(session)).children(recursive=True)]
    assert daemon in {each.pid for each in left}
    session.close()
    wait_until(lambda: not any(alive(each.pid) for each in left))
    wait_until(lambda: files(sandbox) == [])


def test_fifty_sessions_leave_no_process_no_file_and_no_descriptor(sandbox: RestrictedSandbox) -> None:
    def one(number: int) -> str | None:
        session = sandbox.open()
        value = session.run(f"n = open('file', 'w').write('x'); {number} + 1").value
        session.close()
        return value

    one(0)
    descriptors = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(one, range(50))) == [str(number + 1) for number in range(50)]
    wait_until(lambda: zygote(sandbox).children() == [] and files(sandbox) == [])
    assert len(os.listdir("/proc/self/fd")) <= descriptors


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for the sessions' folders of sandboxes that start from now on, which any user may enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o711)
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


# Says its zygote's number, then waits to be killed.
HOST = """
import signal
from agentdistill.tools.sandbox.restricted import RestrictedSandbox
sandbox = RestrictedSandbox()
session = sandbox.open()
session.run("open('file', 'w').write('x')")
print(sandbox._zygote.pid, flush=True)
signal.pause()
"""


def test_what_a_host_and_a_zygote_killed_together_left_is_swept_at_the_next_start(temporary: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOST], stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        family = psutil.Process(int(host.stdout.readline()))
        below = [family, *family.children(recursive=True)]
        for pid in (host.pid, family.pid):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(each.pid) for each in below))
    (left,) = temporary.iterdir()
    sandbox = RestrictedSandbox()
    try:
        assert list(temporary.iterdir()) == [folder(sandbox)] != [left]
    finally:
        sandbox.close()
    assert list(temporary.iterdir()) == []


def test_folders_of_sandboxes_that_live_are_not_swept(temporary: Path) -> None:
    sandboxes = [RestrictedSandbox(LIMITS) for _ in range(2)]
    os.utime(folder(sandboxes[0]), (0, 0))
    sandboxes.append(RestrictedSandbox(LIMITS))
    assert set(temporary.iterdir()) == {folder(each) for each in sandboxes}
    session = sandboxes[0].open()
    assert session.run("open('file', 'w').write('x')").value == "1"
    for each in sandboxes:
        each.close()
    assert list(temporary.iterdir()) == []


def test_a_folder_is_held_while_a_guard_lives_and_by_nothing_of_its_session(temporary: Path) -> None:
    sandbox = RestrictedSandbox(LIMITS)
    session = sandbox.open()
    daemon = int(session.run(DAEMON).value)
    process, pid, path = zygote(sandbox), guard(session), folder(sandbox) / "lock"

    def held() -> bool:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    try:
        os.kill(pid, signal.SIGSTOP)  # or it would see that its zygote is gone
        process.kill()
        wait_until(lambda: not alive(process.pid))
        assert held()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid))
        assert alive(daemon)
        assert not held()
    finally:
        os.kill(daemon, signal.SIGKILL)
        sandbox.close()


def test_what_is_not_known_to_be_dead_is_not_swept(tmp_path: Path) -> None:
    def made(name: str, *, days: float = 0, locked: bool = False, owner: int = -1) -> Path:
        path = tmp_path / name
        (path / "1").mkdir(parents=True)
        if locked:
            (path / "lock").touch()
        os.chown(path, owner, owner)
        os.utime(path, (time.time() - days * 86_400,) * 2)
        return path

    before = "agentdistill-sessions-"
    made(before + "ended", locked=True)
    made(before + "without-a-lock", days=1.1)
    link = tmp_path / f"{before}link"
    link.symlink_to(made("target", days=2))
    stays = {link, tmp_path / "target", made(before + "young", days=0.9), made("another", days=2, locked=True)}
    if os.geteuid() == 0:
        stays |= {made(before + "others", days=2, owner=12345), made(before + "others-ended", locked=True, owner=12345)}
    restricted_zygote.sweep(str(tmp_path))
    assert set(tmp_path.iterdir()) == stays
    assert (tmp_path / "target" / "1").exists()


def test_a_locked_folder_is_swept_only_once_its_lock_is_free(tmp_path: Path) -> None:
    root = tmp_path / "agentdistill-sessions-x"
    root.mkdir()
    (root / "file").touch()
    reading, writing = os.pipe()
    said, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        restricted_zygote.lock(str(root))
        os.write(say, b"x")
        os.read(reading, 1)
        os._exit(0)
    os.read(said, 1)
    os.utime(root, (0, 0))
    restricted_zygote.sweep(str(tmp_path))
    assert {each.name for each in root.iterdir()} == {"lock", "file"}
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    restricted_zygote.sweep(str(tmp_path))
    assert not root.exists()
    for each in (reading, writing, said, say):
        os.close(each)
