"""Weights & Biases: one run, whose step is the line of `metrics.jsonl`.

Offline, every session writes the whole run anew, under the same id, and removes what an earlier one left and nobody has synced:
a killed session's file lacks whatever W&B had not written yet. Online, a resumed run goes on behind the last step that the
server has. Either way no step is there twice.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from agentdistill.loggers.entry import Entry
from agentdistill.loggers.registry import RunInfo

SECONDS = 60.0
"""How long a server may take to answer when a run begins."""


class WandbView:
    """An open W&B run. `WANDB_MODE` goes before the experiment's `log.mode`."""

    def __init__(self, run: RunInfo) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or run.mode
        folder = run.folder / "wandb"
        if mode == "offline":
            for earlier in folder.glob(f"offline-run-*-{run.id}"):
                if not any(earlier.glob("*.synced")):
                    shutil.rmtree(earlier, ignore_errors=True)
        settings = wandb.Settings(console="off", silent=True, init_timeout=SECONDS, reinit="create_new")
        self._run = wandb.init(
            dir=str(run.folder), project=run.project, name=run.name, id=run.id, resume="allow", mode=mode, settings=settings,
            config=dict(run.config),
        )  # fmt: skip
        self.start = int(self._run.starting_step)
        self._axes = set[str]()

    def write(self, entry: Entry) -> None:
        """See `Backend`."""
        for group in {name.rpartition("/")[0] for name in entry.values} - self._axes:
            axis = f"{entry.group}/{entry.axis}" if entry.axis == "step" else entry.axis
            self._run.define_metric(f"{group}/*", step_metric=axis)
            self._axes.add(group)
        at = {entry.axis: entry.at} if entry.axis == "iteration" else {}
        self._run.log({**entry.values, **at}, step=entry.line, commit=True)

    def close(self) -> None:
        """See `Backend`."""
        self._run.finish()


def open_view(run: RunInfo) -> WandbView:
    """The view of a run."""
    return WandbView(run)
