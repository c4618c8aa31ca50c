"""The report of one or several runs: figures as PNG and SVG, and one HTML file that needs nothing from anywhere."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from agentdistill.errors import UserError
from agentdistill.report.data import Run, load_run
from agentdistill.report.page import Section, overlay, render, section
from agentdistill.report.style import Picture
from agentdistill.verbs import callable_as_verb

__all__ = ["report"]


def report(runs: Path | str | Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Write the report of one run, or of several with all their curves over each other.

    Args:
        runs: a run folder, finished or not, or several.
        out: the HTML file (`*.html`) or the folder for it. By default `RUN/report`, and for several runs `comparison`
            beside the first of them. The figures are written next to the page as PNG and SVG files.

    Returns:
        The path of the HTML file.

    Raises:
        UserError: when no run is named, a folder is missing or has no metrics, or the report cannot be written.
    """
    if isinstance(runs, str | Path):
        runs = [runs]
    if not runs:
        raise UserError("no run to report on; name a run folder, such as runs/quickstart")
    folders = [Path(run) for run in runs]
    loaded = [load_run(folder) for folder in folders]
    _name_apart(loaded)
    target = Path(out) if out is not None else _default(folders)
    page = target if target.suffix == ".html" else target / "index.html"
    sections = [section(run) for run in loaded]
    comparison = overlay(loaded, sections)
    html = render(loaded, comparison, sections)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        for name, image in _files(comparison, sections).items():
            (page.parent / name).write_bytes(image)
        partial = page.with_name(f".{page.name}.{os.getpid()}.tmp")
        try:
            partial.write_text(html, encoding="utf-8")
            partial.replace(page)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"the report could not be written to '{page.parent}': {error.strerror or error}") from error
    return page


def _default(folders: Sequence[Path]) -> Path:
    return folders[0] / "report" if len(folders) == 1 else folders[0].resolve().parent / "comparison"


def _name_apart(runs: Sequence[Run]) -> None:
    """Runs whose folders have one name get their parent's name in front, or a number."""
    for attempt in ("parent", "number"):
        counts = Counter(run.name for run in runs)
        for n, run in enumerate(runs, start=1):
            if counts[run.name] > 1:
                run.name = f"{run.path.resolve().parent.name}/{run.name}" if attempt == "parent" else f"{run.name} ({n})"


def _files(comparison: Sequence[Picture], sections: Sequence[Section]) -> dict[str, bytes]:
    """PNG and SVG files by name; the light theme, for papers and READMEs."""
    named = {picture.name: picture for picture in comparison}
    for part in sections:
        prefix = "" if len(sections) == 1 else part.run.name.replace("/", "-") + "-"
        named |= {f"{prefix}{picture.name}": picture for picture in part.pictures}
    files = {f"{name}.png": picture.light for name, picture in named.items()}
    return files | {f"{name}.svg": picture.svg for name, picture in named.items()}


callable_as_verb(__name__)
