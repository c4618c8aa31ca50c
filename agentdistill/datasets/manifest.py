"""`manifest.json`: what an import wrote, file by file, and what it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ValidationError

from agentdistill.datasets.record import Contents, DataSet, Made
from agentdistill.durable import digest
from agentdistill.errors import UserError

FILE = "manifest.json"
FORMAT = 1


class File(BaseModel):
    """A file: SHA-256 in hexadecimal digits, bytes, and rows where it has any."""

    sha256: str
    bytes: int
    rows: int | None = None


class Origin(BaseModel):
    """A source. A folder's SHA-256 is that of the lines that sha256sum prints of the files used, by name within it."""

    path: str
    files: int
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """The content of the file."""

    format: int = FORMAT
    data_set: str
    importer: str
    tasks: dict[str, int]
    files: dict[str, File]
    made_from: list[Origin] = []


def describe(folder: Path, data_set: DataSet, made: Made, contents: Contents, before: Manifest | None) -> Manifest:
    """The manifest of a folder whose import is complete; `before` is that of what was added to."""
    from agentdistill import __version__

    kept = before.files if before else {}
    rows = {name: file.rows for name, file in kept.items()} | dict(made.rows)
    files = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != FILE
    }
    return Manifest(
        data_set=data_set.name,
        importer=f"agentdistill {__version__}, {data_set.name} {data_set.version}",
        tasks=dict(contents.tasks),
        files={name: File(sha256=digest(path), bytes=path.stat().st_size, rows=rows.get(name)) for name, path in files.items()},
        made_from=[*(before.made_from if before else []), *(_origin(named, paths) for named, paths in made.origins)],
    )


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none.

    Raises:
        UserError: when it cannot be read, or is of a newer format.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        found = Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"'{path}' is damaged: {where + ': ' if where else ''}{first['msg']}; import the data again") from error
    if found.format != FORMAT:
        raise UserError(f"'{path}' is of format {found.format}, and this version reads format {FORMAT}; import the data again")
    return found


def differences(folder: Path, manifest: Manifest, *, checksums: bool = True) -> list[str]:
    """A few words for each file that is not as the manifest has it; without `checksums` only lengths are looked at."""
    found = []
    for name, file in manifest.files.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != file.bytes:
            found.append(f"{name} has {path.stat().st_size:,} bytes, not {file.bytes:,}")
        elif checksums and digest(path) != file.sha256:
            found.append(f"{name} has another SHA-256 than in the manifest")
    return found


def _origin(named: str, paths: Iterable[Path]) -> Origin:
    files = sorted(paths)
    top = Path(named)
    if not top.is_dir() and len(files) == 1:
        sha256 = digest(files[0])
    else:
        lines = (f"{digest(path)}  {path.relative_to(top).as_posix()}\n" for path in files)
        sha256 = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Origin(path=named, files=len(files), bytes=sum(path.stat().st_size for path in files), sha256=sha256)
