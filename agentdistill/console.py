"""Progress: lines that read well in a terminal and in a log file, and in a terminal a bar with the time left beneath them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text


class Paper(RichConsole):
    """A terminal or a file to print on. That its reader has gone away is told, and is no failure of the command."""

    def on_broken_pipe(self) -> None:
        """Raises: BrokenPipeError, for the command line to end on."""
        raise BrokenPipeError


class Console:
    """Prints lines with the time since the start; `sink` takes the plain lines instead, if given.

    Attributes:
        began: the start, by `time.perf_counter`.
    """

    def __init__(self, sink: Callable[[str], None] | None = None) -> None:
        self._sink, self._rich, self.began = sink, RichConsole(soft_wrap=True, highlight=False), time.perf_counter()
        self._bar: Progress | None = None

    def say(self, text: str) -> None:
        """Print one line."""
        if self._sink is not None:
            self._sink(text)
            return
        minutes, seconds = divmod(int(time.perf_counter() - self.began), 60)
        self._rich.print(Text.assemble((f"{minutes:3d}:{seconds:02d}  ", "dim"), text))

    def tick(self, what: str, done: int, total: int, now: str = "") -> None:
        """Show how far something is; only a terminal sees it, and the bar goes when it is complete.

        Args:
            now: the latest numbers, which stand behind the time left.
        """
        if self._sink is not None or not self._rich.is_terminal:
            return
        if self._bar is None:
            columns = (
                TextColumn("{task.description}", markup=False), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[now]}", markup=False),
            )  # fmt: skip
            self._bar = Progress(*columns, console=self._rich, transient=True)
            self._bar.add_task(what, total=total, completed=done, now=now)
            self._bar.start()
        self._bar.update(self._bar.tasks[0].id, description=what, completed=done, total=total, now=now)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print an aligned table; in a terminal long cells are wrapped, in a pipe or file a row is a line."""
    shown = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        shown.add_row(*map(Text, row))
    screen = Paper(highlight=False)
    if screen.is_terminal:
        screen.print(shown)
        return
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns) - 1)]
    for row in (columns, *rows):
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))
