"""The viewer of a run's trajectories: one self-contained HTML page, the same page served on this machine, or the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from agentdistill.errors import UserError
from agentdistill.report.text import visible
from agentdistill.viewer.page import build
from agentdistill.viewer.source import Source, open_source

__all__ = ["NAME", "Source", "build", "open_source", "write"]

NAME = "viewer.html"


def write(folder: Path, out: Path | None = None, batches: Sequence[str] = ()) -> tuple[Path, Source]:
    """Write the page of a run, a rollout or an evaluation.

    Args:
        out: the HTML file (`*.html`), or the folder for `viewer.html`; the run's own folder by default.
        batches: names of stored batches; all by default.

    Returns:
        The file, and what was read; what could not be read is told in its `run.notes`, and on the page.

    Raises:
        UserError: when there is no such run or batch, nothing that is stored can be read, or the page cannot be written.
    """
    source = open_source(folder, batches)
    parts = build(source)
    target = folder if out is None else out
    page = target if target.suffix == ".html" else target / NAME
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        _replace(page, parts)
    except OSError as error:
        raise UserError(f"the page could not be written to '{visible(str(page))}': {error.strerror or error}") from error
    return page, source


def _replace(page: Path, parts: Iterable[str]) -> None:
    """Put the page in place in one rename: a reader sees the old one or the new one."""
    partial = page.with_name(f".{page.name}.{os.getpid()}.tmp")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(parts)
        partial.replace(page)
    finally:
        partial.unlink(missing_ok=True)
