"""Data sets that are files of rows: reading official downloads row by row, checking them, and writing one form."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from agentdistill.datasets import Contents, Job, Made, Piece
from agentdistill.envs.data import count_rows, read_lines
from agentdistill.envs.jsonstream import elements
from agentdistill.errors import UserError, nearest
from agentdistill.faults import described

_KEPT_SUFFIXES = (".gz", ".xz", ".jsonl", ".json")


@dataclass(frozen=True, slots=True)
class RowFile:
    """A file of a data set.

    Attributes:
        part: how it is named in a source `part=path`.
        file: its name in the packed form; `.json` is an array, anything else JSON lines, compressed where it ends in `.gz`.
        rows: how many the official file has.
        download: where that comes from, in words.
        check: looks at a row; raises whatever it likes where the row is bad.
        needed: whether the set is incomplete without it.
    """

    part: str
    file: str
    rows: int
    download: str
    check: Callable[[Any], object]
    needed: bool = True


def pieces(parts: Iterable[RowFile]) -> dict[str, Piece]:
    """The `DataSet.pieces` of such files."""
    return {each.file: Piece(each.download, f"{each.part}=path/to/file") for each in parts}


def count(folder: Path, parts: Iterable[RowFile]) -> tuple[dict[str, int], Contents]:
    """Rows of each file that is there, by part, and contents that say which are not.

    Raises:
        UserError: when one is damaged.
    """
    there = {each.part: _rows_in(folder / each.file) for each in parts if (folder / each.file).exists()}
    absent = [each for each in parts if each.needed and each.part not in there]
    short = [each for each in parts if there.get(each.part, each.rows) < each.rows]
    lacks = [f"{each.part} ({each.file})" for each in absent]
    lacks += [f"{each.rows - there[each.part]:,} of {each.part}'s {each.rows:,} rows" for each in short]
    return there, Contents({}, tuple(lacks), tuple(each.file for each in (*absent, *short)))


def import_rows(job: Job, parts: Sequence[RowFile]) -> Made:
    """Copy the sources, each a file, `part=path`, or a folder with files of the packed form's names.

    Raises:
        UserError: when one is missing or damaged, has a bad row, which is named by its line, or fewer rows than it should.
    """
    chosen: dict[str, tuple[RowFile, Path]] = {}
    for source in job.sources:
        for part, path in _resolved(source, parts):
            if part.part in chosen:
                raise UserError(f"'{path}' and '{chosen[part.part][1]}' are both given for {part.part}; choose one")
            chosen[part.part] = part, path
    rows = {part.file: _copy(job, part, path) for part, path in chosen.values()}
    return Made(rows, tuple((str(path), (path,)) for _, path in chosen.values()))


def _resolved(source: str, parts: Sequence[RowFile]) -> Iterator[tuple[RowFile, Path]]:
    known = {each.part: each for each in parts}
    by_stem = {_stem(name): each for each in parts for name in (each.part, each.file)}
    name, equals, rest = source.partition("=")
    if equals and not Path(source).exists():
        if name not in known:
            raise UserError(f"the source '{source}' names no part of the data set{nearest(name, known)}")
        yield known[name], _file(rest)
    elif Path(source).is_dir():
        found = {part.part: (part, path) for part in parts for path in _named_so(Path(source), part)}
        if not found:
            raise UserError(
                f"the folder '{source}' holds none of {', '.join(each.file for each in parts)}; name files as part=path, "
                f"where part is {', '.join(known)}"
            )
        yield from found.values()
    else:
        path = _file(source)
        if (part := by_stem.get(_stem(path.name))) is None:
            raise UserError(
                f"the name of '{source}' does not say what it is; write part={source}, where part is {', '.join(known)}"
            )
        yield part, path


def _named_so(folder: Path, part: RowFile) -> list[Path]:
    """The file of a part in a folder, compressed or not."""
    plain = part.file.removesuffix(".gz")
    return [path for path in (folder / f"{plain}.gz", folder / plain) if path.is_file()][:1]


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file '{path}' to import")
    return path


def _stem(name: str) -> str:
    for suffix in _KEPT_SUFFIXES:
        name = name.removesuffix(suffix)
    return name.lower()


def _copy(job: Job, part: RowFile, path: Path) -> int:
    done = 0
    with _writer(job.folder / part.file) as write:
        for place, row in _placed(path):
            try:
                part.check(row)
            except Exception as error:  # whatever a reader says of a row that it was not written for
                what = f"it has no {error}" if isinstance(error, KeyError) else described(error)
                raise UserError(
                    f"{place} of '{path}' is no row of {part.part}: {what}; download {part.download} again"
                ) from error
            write(json.dumps(row, ensure_ascii=False))
            done += 1
            job.progress(f"rows of {part.part}", done)
    if done == 0 or (done < part.rows and not job.partial):
        unless = ", or accept that with --partial" if done else ""
        raise UserError(
            f"'{path}' holds {done:,} rows and not {part.part}'s {part.rows:,}; download {part.download} again{unless}"
        )
    return done


def _placed(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file with their places, as errors name them."""
    if path.name.removesuffix(".gz").endswith(".json"):
        for number, row in enumerate(elements(path), 1):
            yield f"entry {number}", row
        return
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                raise UserError(f"line {number} of '{path}' is damaged ({error}); download the file again") from error


@contextmanager
def _writer(path: Path) -> Iterator[Callable[[str], object]]:
    """A function that writes a row. The same rows give the same bytes."""
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed, _text(packed) as out:
                yield lambda row: out.write(row + "\n")
        elif path.suffix == ".json":
            with _text(raw) as out:
                before = iter("[")
                yield lambda row: out.write(next(before, ",") + "\n" + row)
                out.write("\n]\n")
        else:
            with _text(raw) as out:
                yield lambda row: out.write(row + "\n")


def _text(binary: Any) -> TextIO:
    return io.TextIOWrapper(binary, encoding="utf-8", newline="\n")


def _rows_in(path: Path) -> int:
    return sum(1 for _ in elements(path)) if path.suffix == ".json" else count_rows(path)
