from __future__ import annotations

import contextvars
import threading
import time

import pytest

from agentdistill import deadline
from agentdistill.deadline import MAX_STUCK, TookTooLong, TooManyStuck, call_within, stuck


def spin() -> None:
    while True:
        pass


def doze() -> None:
    while True:
        time.sleep(0.01)


def test_results_and_exceptions_are_the_functions():
    assert call_within(10, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        call_within(10, lambda: 1 / 0)
    with pytest.raises(SystemExit):
        call_within(10, exit)


def test_the_callers_context_is_seen():
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(5)
    assert call_within(10, variable.get) == 5


@pytest.mark.parametrize("function", [spin, doze])
def test_an_endless_loop_in_python_is_left_and_its_thread_ends(function):
    before = threading.active_count()
    with pytest.raises(TookTooLong):
        call_within(0.05, function)
    assert threading.active_count() == before
    assert stuck() == 0


def test_locks_of_what_was_left_are_released():
    lock = threading.Lock()

    def hold() -> None:
        with lock:
            doze()

    with pytest.raises(TookTooLong):
        call_within(0.05, hold)
    assert lock.acquire(timeout=5)


def test_what_cannot_be_ended_is_counted_and_too_much_of_it_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deadline, "_GRACE", 0.01)
    release = threading.Event()
    for _ in range(MAX_STUCK):
        with pytest.raises(TookTooLong):  # waiting for a lock is C code, which no exception reaches
            call_within(0.01, release.wait)
    assert stuck() == MAX_STUCK
    with pytest.raises(TooManyStuck, match=f"{MAX_STUCK} calls that took too long are still running"):
        call_within(10, lambda: 3)
    release.set()
    for _ in range(1_000):
        if not stuck():
            break
        time.sleep(0.01)
    assert call_within(10, lambda: 3) == 3


def test_a_late_result_is_nobodys(capfd: pytest.CaptureFixture[str]):
    def late() -> int:
        try:
            doze()
        finally:
            seen.append("left")
        return 1

    seen: list[str] = []
    with pytest.raises(TookTooLong):
        call_within(0.05, late)
    assert seen == ["left"]
    assert capfd.readouterr() == ("", "")  # no traceback of the thread either


def test_what_is_returned_in_answer_to_being_stopped_is_late():
    def stubborn() -> str:
        try:
            doze()
        except BaseException:
            return "caught"

    with pytest.raises(TookTooLong):
        call_within(0.05, stubborn)
    assert stuck() == 0
