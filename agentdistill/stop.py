"""How the command line is stopped: Ctrl-C or SIGTERM, one line, exit code 130.

This module imports next to nothing, and the package imports it first: until a verb begins its work there is nothing to put
away, so a stop while libraries are still being imported, which takes seconds, ends the process where it stands.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

CODE = 130  # 128 + SIGINT, as shells count


class Stop:
    """A signal handler. After `gently`, the first signal is a KeyboardInterrupt, and only a second one ends the process.

    A run that is ended on the spot is as safe as a killed one: it goes on from its last checkpoint.
    """

    def __init__(self) -> None:
        self._hint, self._gentle, self._told = "", False, False
        self._before: dict[int, Any] = {}

    def arm(self) -> None:
        """Take Ctrl-C and SIGTERM over."""
        self._gentle = self._told = False
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, self)
                self._before.setdefault(number, before)

    def disarm(self) -> None:
        """Give them back, where the command was called from a program that goes on."""
        while self._before:
            signal.signal(*self._before.popitem())

    def gently(self, hint: str) -> None:
        """From now on let the first signal unwind; `hint` says how to go on after it."""
        self._hint, self._gentle = hint, True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """What a signal does."""
        if self._gentle:
            self._gentle = False
            raise KeyboardInterrupt
        self.tell()
        os._exit(CODE)

    def tell(self) -> None:
        """The one line, once."""
        if not self._told:
            self._told = True
            os.write(2, f"\nagentdistill: stopped{self._hint}\n".encode())


command = Stop()
_MODULE = " ".join([word for word in sys.orig_argv[1:4] if word != "-u"][:2])  # torchrun starts Python with -u
if Path(sys.argv[0] if sys.argv else "").name == "agentdistill" or _MODULE in ("-m agentdistill", "-m agentdistill.cli"):
    command.arm()
