"""Calling a function that may never return, in this process, for at most so many seconds.

Python cannot kill a thread. One that is late is sent an exception, which ends Python code at its next step, an endless
loop included. Code inside a C function goes on until that returns, and is left alone as a daemon thread; when too many such
threads are running, further calls are refused. What holds the interpreter's lock in C (`9**10**9`) stops this process and
no clock in it: such work belongs into a `worker.Worker`.
"""

from __future__ import annotations

import contextvars
import ctypes
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
MAX_STUCK = 8
_GRACE = 1.0  # seconds for a late thread to end once it was told to
_stuck: set[threading.Thread] = set()


class TookTooLong(Exception):
    """The function did not return in time."""


class TooManyStuck(Exception):
    """The function was not called: too many threads of earlier calls have not ended."""


class _Abandoned(SystemExit):
    """Sent into a late thread. `threading` says nothing of a SystemExit that ends a thread."""


def call_within(seconds: float, function: Callable[[], T]) -> T:
    """What `function` returns or raises, called in a thread of its own under a copy of the caller's context.

    Raises:
        TookTooLong: after `seconds`, also when it returns something in answer to being told to end.
        TooManyStuck: when `MAX_STUCK` threads of late calls are running.
    """
    if stuck() >= MAX_STUCK:
        raise TooManyStuck(f"{MAX_STUCK} calls that took too long are still running")
    outcome: list[Any] = []  # one of ("returned", value) and ("raised", exception)
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.append(("returned", context.run(function)))
        except _Abandoned:
            pass
        except BaseException as error:
            outcome.append(("raised", error))

    thread = threading.Thread(target=run, name="tool call", daemon=True)
    thread.start()
    try:
        thread.join(seconds)
    finally:  # also when Ctrl-C ends the waiting
        late = thread.is_alive()
        if late:
            _abandon(thread)
    if late or not outcome:
        raise TookTooLong
    how, what = outcome[0]
    if how == "raised":
        raise what
    value: T = what
    return value


def stuck() -> int:
    """How many threads of late calls are running."""
    for thread in list(_stuck):
        if not thread.is_alive():
            _stuck.discard(thread)
    return len(_stuck)


def _abandon(thread: threading.Thread) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Abandoned))
    thread.join(_GRACE)
    if thread.is_alive():
        _stuck.add(thread)
