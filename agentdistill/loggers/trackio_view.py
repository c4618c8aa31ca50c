"""trackio: a run in its local database (`TRACKIO_DIR`), whose step is the line of `metrics.jsonl`.

A resumed run goes on behind the last step that the database has, which is where a killed session's ended.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

from agentdistill.loggers.entry import Entry
from agentdistill.loggers.registry import RunInfo


class TrackioView:
    """An open trackio run, `<name>-<id>`."""

    def __init__(self, run: RunInfo) -> None:
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        name = f"{run.name}-{run.id[:6]}"
        last = SQLiteStorage.get_max_step_for_run(run.project, name)
        self.start = 0 if last is None else int(last) + 1
        with contextlib.redirect_stdout(io.StringIO()):
            self._run: Any = trackio.init(
                project=run.project, name=name, resume="allow", config=dict(run.config), embed=False,
                auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip

    def write(self, entry: Entry) -> None:
        """See `Backend`."""
        at = {entry.axis: entry.at} if entry.axis == "iteration" else {}
        self._run.log({**entry.values, **at}, step=entry.line)

    def close(self) -> None:
        """See `Backend`."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()


def open_view(run: RunInfo) -> TrackioView:
    """The view of a run."""
    return TrackioView(run)
