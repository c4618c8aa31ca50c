"""The viewer of a run's trajectories: one self-contained HTML page, the same page served to this machine, or the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from agentdistill import durable
from agentdistill.console import Paper
from agentdistill.errors import UserError
from agentdistill.report.text import visible
from agentdistill.viewer.page import build
from agentdistill.viewer.serve import Page, Server
from agentdistill.viewer.source import Source, open_source
from agentdistill.viewer.terminal import Selection, show

__all__ = ["NAME", "Page", "Selection", "Server", "Source", "build", "open_source", "show", "view", "write"]

NAME = "viewer.html"


def view(
    run: str | Path, *, batch: str | Sequence[str] = (), out: str | Path | None = None, serve: bool = False,
    port: int | None = None, text: bool = False, trajectory: str | Sequence[str] = (), success: bool | None = None,
    scorer: str = "", limit: int | None = None, say: Callable[[str], None] | None = None,
) -> Path | None:  # fmt: skip
    """Make the page of a run's trajectories; or serve it to this machine; or print trajectories.

        ad.view("runs/quickstart")                                        # runs/quickstart/viewer.html
        ad.view("runs/quickstart", text=True, success=False, limit=1)     # a failure, in the terminal

    Args:
        run: folder of a run, a rollout or an evaluation.
        batch: a stored batch, such as `iter-000001`, or several; all by default.
        out: the HTML file (`*.html`), or the folder for `viewer.html`; the run's own folder by default.
        serve: serve the page on 127.0.0.1 until Ctrl-C instead of writing it; it is made again when the run has stored more.
        port: with `serve`; any free one by default.
        text: print instead.
        trajectory, success, scorer, limit: with `text`: ids; only successes or only failures; whose divergence is shown, by
            default the teacher's; how many at most, by default 3, or as many as `trajectory` names.
        say: with `serve` or for notes: takes lines; the terminal by default.

    Returns:
        The page, or None where none was written.

    Raises:
        UserError: when there is no such run, batch, trajectory or scorer, nothing that is stored can be read, the page cannot
            be written, the port cannot be used, or options are given that do not go together.
    """
    _refuse(
        serve, text, {"out": out, "port": port, "trajectory": trajectory, "success": success, "scorer": scorer, "limit": limit}
    )
    folder, batches = Path(run), [batch] if isinstance(batch, str) else list(batch)
    tell = say or print
    if serve:
        with Server(Page(folder, batches), port or 0) as server:
            server.run(tell)
        return None
    if text:
        ids = [trajectory] if isinstance(trajectory, str) else list(trajectory)
        chosen = Selection(ids, success, scorer, (len(ids) or 3) if limit is None else limit)
        show(open_source(folder, batches), chosen, Paper(soft_wrap=True, highlight=False, emoji=False, markup=False))
        return None
    page, source = write(folder, None if out is None else Path(out), batches)
    for note in source.run.notes:
        tell(f"note: {note}")
    return page


def _refuse(serving: bool, text: bool, options: dict[str, object]) -> None:
    """Refuse options that do not go together, and what names nothing."""
    if serving and text:
        raise UserError("--serve and --text are two ways to look at a run; choose one")
    given = [name for name, value in options.items() if value is not None and value not in ((), "")]
    if options["out"] is not None and (not str(options["out"]).strip() or "\0" in str(options["out"])):
        raise UserError(f"out is {str(options['out'])!r}; name an .html file, or the folder where viewer.html goes")
    for name in given:
        if name == "out" and (serving or text):
            raise UserError(f"--out is for the page, which --{'serve' if serving else 'text'} does not write")
        if name == "port" and not serving:
            raise UserError("--port is for --serve")
        if name not in ("out", "port") and not text:
            shown = "outcome" if name == "success" else name
            raise UserError(f"--{shown} is for --text; on the page trajectories are filtered where they are looked at")
    limit = options["limit"]
    if isinstance(limit, int) and limit < 1:
        raise UserError(f"--limit is {limit}; it must be at least 1")


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
    data = "".join(build(source)).encode("utf-8")
    target = folder if out is None else out
    page = target if target.suffix == ".html" else target / NAME
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(page, data)
    except OSError as error:
        raise UserError(f"the page could not be written to '{visible(str(page))}': {error.strerror or error}") from error
    return page, source
