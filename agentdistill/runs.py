"""The folder that a user names for a result."""

from __future__ import annotations

from pathlib import Path

from agentdistill.errors import UserError


def named_folder(out: str | Path) -> Path:
    """A folder that the user named."""
    if not str(out).strip():
        raise UserError("out is empty; name the folder where the results go")
    if "\0" in str(out):
        raise UserError(f"out is {str(out)!r}; a folder's name cannot hold a NUL character")
    return Path(out)
