"""The back-ends of a run at work: they are given what is new in `metrics.jsonl`, and none of them can stop the run."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from agentdistill.loggers.entry import Entry
from agentdistill.loggers.registry import Backend, BackendSpec, RunInfo


class Hub:
    """Gives the lines of a run's files to its back-ends: those that are there when it is made, and whatever comes.

    An iteration's line waits for its wall times, which are written after it, until another line comes. A back-end that
    raises is off from then on, with a note.

    Args:
        specs: which back-ends.
        run: whose.
        say: takes notes.
    """

    def __init__(self, specs: Sequence[BackendSpec], run: RunInfo, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self._open: dict[str, Backend] = {}
        self._metrics, self._timings = Tail(run.folder / "metrics.jsonl"), Tail(run.folder / "timings.jsonl")
        self._waiting: tuple[int, dict[str, Any]] | None = None
        self._times: dict[int, dict[str, Any]] = {}
        self._line = 0
        for spec in specs:
            self._guarded(spec.name, functools.partial(self._begin, spec))
        self.catch_up()

    def catch_up(self) -> None:
        """Give the back-ends what was written since the last time."""
        if not self._open:
            return
        for timing in self._timings.lines():
            self._times[int(timing.get("iteration", -1))] = timing
        for record in self._metrics.lines():
            self._flush()
            self._waiting = (self._line, record)
            self._line += 1
        if self._waiting is not None and self._is_complete(self._waiting[1]):
            self._flush()

    def close(self) -> None:
        """Give them what is left, and close them."""
        self.catch_up()
        self._flush()
        for name, backend in list(self._open.items()):
            self._guarded(name, backend.close)
        self._open.clear()

    def _is_complete(self, record: dict[str, Any]) -> bool:
        return record.get("kind") != "iteration" or record.get("iteration") in self._times

    def _flush(self) -> None:
        if self._waiting is None:
            return
        (line, record), self._waiting = self._waiting, None
        timing = self._times.pop(record["iteration"], None) if record.get("kind") == "iteration" else None
        entry = Entry.of(line, record, timing)
        for name, backend in list(self._open.items()):
            self._guarded(name, functools.partial(_give, backend, entry))

    def _begin(self, spec: BackendSpec) -> None:
        self._open[spec.name] = spec.opened(self._run)

    def _guarded(self, name: str, what: Callable[[], object]) -> None:
        """Do something that may fail for reasons that are none of the run's."""
        try:
            what()
        except Exception as error:
            self._open.pop(name, None)
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._say(f"note: logging to '{name}' failed and is off from here on ({reason}); metrics.jsonl has every number")


def _give(backend: Backend, entry: Entry) -> None:
    if entry.line >= backend.start:
        backend.write(entry)


class Tail:
    """Whole lines of a file that grows, each once."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def lines(self) -> Iterator[dict[str, Any]]:
        """What came since the last time."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._offset += len(line)
                    yield json.loads(line)
        except FileNotFoundError:
            return
