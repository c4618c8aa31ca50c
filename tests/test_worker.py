from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentdistill.worker import Worker, WorkerDied, WorkerNotStarted, WorkerRaised, WorkerTimeout


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int) -> bool:
    """Whether a process ends; signals take a moment to arrive."""
    for _ in range(500):
        if not alive(pid):
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that only this process's import path can find."""
    (tmp_path / "served.py").write_text(
        textwrap.dedent("""
        import os, sys
        def pid(): return os.getpid()
        def spin():
            while True: pass
        def either(stuck): return spin() if stuck else os.getpid()
        def fork_and_spin():
            os.fork()
            spin()
        def say(value): print(repr(value)); print(repr(value), file=sys.stderr); return value
        def grow(n): return len(bytearray(n))
        def cycle():
            a = []; a.append(a); return a
        def huge(n): return "x" * n
        class Mute(Exception):
            def __str__(self): raise RuntimeError
        def fail(): raise Mute
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "served"


def test_results_are_the_functions_and_one_process_serves_all_calls(module: str):
    worker = Worker(f"{module}:pid", timeout=10)
    assert worker.call() == worker.call() != os.getpid()
    assert worker.starts == 1
    assert Worker("math:factorial", timeout=10).call(30) == 265252859812191058636308480000000


def test_json_of_any_text_crosses_and_prints_do_not_disturb_it(module: str):
    worker = Worker(f"{module}:say", timeout=10)
    for text in ["a\nb\0\ud800é😀", "x" * 3_000_000, {"a": [1, None, 1e300]}]:
        assert worker.call(text) == text


@pytest.mark.parametrize(("function", "args"), [("served:spin", ()), ("builtins:pow", (9, 10**9)), ("time:sleep", (99,))])
def test_work_that_does_not_end_is_killed_also_inside_c(module: str, function: str, args: tuple[int, ...]):
    worker = Worker(function, timeout=0.3)
    with pytest.raises(WorkerTimeout, match=r"took longer than 0\.3 s"):
        worker.call(*args)


def test_after_a_kill_the_next_call_starts_another_process(module: str):
    worker = Worker(f"{module}:either", timeout=0.5)
    first = worker.call(False)
    with pytest.raises(WorkerTimeout):
        worker.call(True)
    assert not alive(first)
    assert worker.call(False) != first
    assert worker.starts == 2


def test_a_kill_takes_the_children_along(module: str):
    worker = Worker(f"{module}:fork_and_spin", timeout=0.5)
    with pytest.raises(WorkerTimeout):
        worker.call()
    found = subprocess.run(["pgrep", "-f", "served:fork_and_spin"], capture_output=True, text=True, check=False).stdout.split()
    assert all(gone(int(pid)) for pid in found)


def test_exceptions_come_back_by_name_and_the_process_lives_on():
    worker = Worker("math:factorial", timeout=10)
    with pytest.raises(WorkerRaised, match="ValueError: factorial") as caught:
        worker.call(-1)
    assert caught.value.kind == "ValueError"
    with pytest.raises(WorkerRaised, match="TypeError"):
        worker.call("a")
    assert (worker.call(3), worker.starts) == (6, 1)


def test_an_exception_that_cannot_be_printed_comes_back_by_its_name_alone(module: str):
    with pytest.raises(WorkerRaised, match=r"^Mute$") as caught:
        Worker(f"{module}:fail", timeout=10).call()
    assert (caught.value.kind, caught.value.said) == ("Mute", "")


def test_a_result_that_is_not_json_is_an_error(module: str):
    with pytest.raises(WorkerRaised, match="TypeError"):
        Worker("builtins:set", timeout=10).call([1])
    with pytest.raises(WorkerRaised, match="Circular"):
        Worker(f"{module}:cycle", timeout=10).call()
    with pytest.raises(WorkerDied, match="too long"):
        Worker(f"{module}:huge", timeout=10).call(40 << 20)


def test_memory_and_cpu_are_limited(module: str):
    with pytest.raises(WorkerRaised, match="MemoryError"):
        Worker(f"{module}:grow", timeout=10, memory=1 << 30).call(2 << 30)
    with pytest.raises(WorkerDied):  # the kernel ends it long before the timeout
        Worker(f"{module}:spin", timeout=60, cpu=1).call()


def test_cpu_time_is_counted_for_each_call_alone():
    worker = Worker("builtins:sum", timeout=10, cpu=2)
    for _ in range(4):
        worker.call([1] * 10)
    assert worker.starts == 1


def test_a_process_that_ends_or_cannot_start_is_reported():
    worker = Worker("os:_exit", timeout=10)
    with pytest.raises(WorkerDied, match="ended during the call"):
        worker.call(1)
    with pytest.raises(WorkerNotStarted, match="no attribute 'nope'"):
        Worker("math:nope", timeout=10).call()
    with pytest.raises(WorkerNotStarted, match="No module named"):
        Worker("no_such_module:f", timeout=10).call()


def test_threads_wait_for_each_other_and_get_their_own_results():
    worker = Worker("math:factorial", timeout=10)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(worker.call, [3, 4, 5] * 30)) == [6, 24, 120] * 30
    assert worker.starts == 1


def test_the_process_outlives_the_thread_that_first_called(module: str):
    worker = Worker(f"{module}:pid", timeout=10)
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(worker.call()))
    thread.start()
    thread.join()
    assert worker.call() == seen[0]


def test_close_and_forgetting_end_the_process(module: str):
    worker = Worker(f"{module}:pid", timeout=10)
    first = worker.call()
    worker.close()
    assert not alive(first)
    second = worker.call()
    del worker
    gc.collect()
    assert not alive(second)


@pytest.mark.parametrize("ending", ["pass", "os.kill(os.getpid(), signal.SIGKILL)", "os._exit(1)"])
def test_no_process_is_left_however_the_parent_ends(module: str, ending: str):
    script = f"""
import os, signal, threading, time
from agentdistill.worker import Worker
idle, busy = Worker("served:pid", timeout=60), Worker("served:either", timeout=60)
print(idle.call(), busy.call(False), flush=True)
threading.Thread(target=busy.call, args=(True,), daemon=True).start()
time.sleep(0.2)
{ending}
"""
    path = os.pathsep.join(sys.path)
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    assert all(gone(pid) for pid in pids)


def test_a_forked_child_starts_its_own_and_leaves_its_parents_alone(module: str):
    worker = Worker(f"{module}:pid", timeout=10)
    parents = worker.call()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(worker.call()).encode())
        worker.close()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    childs = int(os.read(read, 100))
    assert childs != parents
    assert gone(childs)
    assert worker.call() == parents
