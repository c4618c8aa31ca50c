"""The command line of `agentdistill view`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional


@dataclass(frozen=True)
class View:
    """Look at a run's trajectories: one self-contained HTML page, the same page served to this machine, or the terminal."""

    run_folder: Annotated[Positional[str], tyro.conf.arg(name="run", metavar="RUN")]
    """Folder of a run, a rollout or an evaluation."""
    batch: tuple[str, ...] = ()
    """Stored batches, such as iter-000001 eval-after (default: all)."""
    out: str | None = None
    """The HTML file, or the folder for viewer.html (default: the run's folder)."""
    serve: bool = False
    """Serve the page on 127.0.0.1 instead of writing it, until Ctrl-C; a reload shows what the run has stored since."""
    port: int | None = None
    """With --serve: the port (default: any free one)."""
    text: bool = False
    """Print trajectories in the terminal instead."""
    trajectory: tuple[str, ...] = ()
    """With --text: ids of trajectories (default: the first that fit)."""
    outcome: Literal["any", "success", "failure"] = "any"
    """With --text: only successes, or only failures."""
    scorer: str = ""
    """With --text: whose divergence is shown (default: the teacher's)."""
    limit: int | None = None
    """With --text: how many trajectories at most (default: 3, or as many as --trajectory names)."""

    def run(self) -> None:
        """Do it."""
        from agentdistill import api

        success = {"any": None, "success": True, "failure": False}[self.outcome]
        names = ("batch", "out", "serve", "port", "text", "trajectory", "scorer", "limit")
        options: dict[str, Any] = {name: getattr(self, name) for name in names}
        page = api.view(self.run_folder, success=success, **options)
        if page is not None:
            print(page)
