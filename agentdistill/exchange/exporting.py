"""Exporting: stored trajectories in a format, to a path that is not there yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agentdistill.errors import UserError, nearest
from agentdistill.exchange.registry import resolve
from agentdistill.exchange.source import Source
from agentdistill.store import Store


def export_store(
    store: Store, name: str, form: str, out: Path, batches: Sequence[str] = (), *, success_only: bool = False,
    options: Mapping[str, str | None] | None = None,
) -> int:  # fmt: skip
    """Write batches of a store in a format.

    Args:
        name: of the run.
        batches: all by default.
        options: the format's own, such as `table`.

    Returns:
        How many rows were written.

    Raises:
        UserError: for an unknown format, option or batch, a package that is missing, or an `out` that is there already.
    """
    writer, chosen = resolve(form, options or {})
    known = store.batches()
    for batch in batches:
        if batch not in known:
            raise UserError(f"the store {store.path} has no batch '{batch}'{nearest(batch, known)}")
    if not known:
        raise UserError(f"the store {store.path} holds no trajectories, so there is nothing to export")
    if out.exists() or out.is_symlink():
        raise UserError(f"'{out}' is there already; choose another --out, or remove it first")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder '{out.parent}' cannot be made: {error.strerror}") from error
    return writer(Source(name, store, list(batches) or known, success_only), out, **chosen)
