"""Run a function in a forked child: what a process does to itself for good, such as a filter, must not stay on the tests."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_SECONDS = 20  # after which the kernel ends a child that hangs


class Died(Exception):
    """The child ended without a word.

    Attributes:
        code: its exit status, or the negative number of the signal that ended it.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"the child ended with {code}")
        self.code = code


def forked(function: Callable[..., T], *arguments: object) -> T:
    """The function's result, from a child.

    Raises:
        Died: the child ended before the function did.
        Exception: whatever the function raised; an exception that cannot be pickled is a RuntimeError with its words.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_SECONDS)
        os.close(read)
        _answer(write, function, arguments)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        said = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not said:
        raise Died(code)
    result, error = pickle.loads(said)
    if error is not None:
        raise error
    return result


def _answer(write: int, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """Never returns: nothing of the tests, their `finally` clauses included, may run twice."""
    try:
        try:
            said = pickle.dumps((function(*arguments), None))
        except BaseException as error:
            try:
                said = pickle.dumps((None, error))
                pickle.loads(said)
            except Exception:
                said = pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
        while said:
            said = said[os.write(write, said) :]
    finally:
        os._exit(0)
