"""SHA-256 digests of the files a run reads back, so that a flipped bit is an error and not another result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from agentdistill.durable import digest, sync
from agentdistill.errors import UserError

RESTORE = "restore it, or start over with another --out"


def seal(root: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Digests of files, and of all files below folders, by their path relative to `root`; each is on disk afterwards.

    Raises:
        OSError: when a file cannot be read or synced.
    """
    files = sorted(file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    for file in files:
        sync(file)
    for folder in {file.parent for file in files}:
        sync(folder)
    return {file.relative_to(root).as_posix(): digest(file) for file in files}


def verify(root: Path, sealed: Mapping[str, str], stage: str) -> None:
    """Hold files against their digests. Files that are there and were never sealed do not matter.

    Args:
        stage: who wrote them, for the error.

    Raises:
        UserError: naming the first file that is missing or differs.
    """
    for name, expected in sealed.items():
        path = root / name
        folder = next((p for p in reversed(path.parents) if p.is_relative_to(root) and not p.exists()), path)
        if not folder.exists():
            kind = "file" if folder == path else "folder"
            raise UserError(f"the run's own {kind} '{folder}', which its stage '{stage}' wrote, is missing; {RESTORE}")
        try:
            found = digest(path)
        except OSError as error:
            raise UserError(f"'{path}' cannot be read: {error.strerror}; {RESTORE}") from error
        if found != expected:
            raise UserError(
                f"'{path}' is damaged: it is not what stage '{stage}' wrote (its SHA-256 differs from progress.json); {RESTORE}"
            )
