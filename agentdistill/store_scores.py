"""Scores that a store was given afterwards, in files of their own beside its trajectories, which are not touched.

`scores/<scorer>/scorer.json` says who the scorer is; `scores/<scorer>/<batch>@<first row>.parquet` holds what it says of some
consecutive trajectories of a batch, a row a trajectory. A file appears whole or not at all and is replaced by its name, so
that scoring which was cut short goes on where it stopped and no trajectory has two rows.
"""

from __future__ import annotations

import fcntl
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from agentdistill.durable import replace
from agentdistill.errors import StoreError
from agentdistill.store_schema import escape, unescape
from agentdistill.trajectory import Scores

R = TypeVar("R")
FOLDER = "scores"
_ABOUT, _LOCK = "scorer.json", ".lock"
_VERSION_KEY, _VERSION = b"agentdistill.scores", 1
_REAL = pa.list_(pa.float32())  # what a model gives; log-probs in float64 would be twice the bytes and no more digits
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("logprobs", _REAL),  # null where nothing was to be scored, as the next three
        ("entropy", _REAL),
        ("topk_ids", pa.list_(pa.int32())),  # k a token, one token after the other
        ("topk_logprobs", _REAL),
    ]
)
_FLOATS = [f"{name}.list.element" for name in ("logprobs", "entropy", "topk_logprobs")]

Row = tuple[str, Scores | None]
"""A trajectory's id, and what was said of it, if anything."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a scorer is, and what it was shown.

    Attributes:
        model: the reference it was loaded by.
        weights, vocabulary: SHA-256 of its parameters, and of its tokenizer's tokens with their ids.
        prompt: whether it read each trajectory's `teacher` prompt, where there is one, or the `student`'s.
    """

    model: str
    weights: str
    vocabulary: str
    prompt: Literal["teacher", "student"] = "teacher"


@dataclass(frozen=True, slots=True)
class Part:
    """One file: `n` trajectories from row `start` on, `scored` of which are, with a top-k of width `k` (0: without).

    `batch` is the SHA-256 of the batch's file to which they belong.
    """

    path: Path
    start: int
    n: int
    scored: int
    k: int
    entropy: bool
    batch: str

    def has(self, k: int, entropy: bool) -> bool:
        """Whether that is enough."""
        return self.k >= k and (self.entropy or not entropy)


class ScoreFiles:
    """One scorer's files below a store's folder; there need not be any."""

    def __init__(self, store: Path, scorer: str) -> None:
        if not scorer.strip() or not scorer.isprintable():
            raise StoreError(f"a scorer needs a printable name, not {scorer!r}")
        self.scorer, self.folder = scorer, store / FOLDER / quote(scorer, safe=" @+=").replace(".", "%2E", scorer[0] == ".")

    def identity(self) -> Identity | None:
        """Who the scorer is, or None where that was never written down.

        Raises:
            StoreError: when the file that says so is damaged.
        """
        path = self.folder / _ABOUT
        try:
            return Identity(**json.loads(path.read_text(encoding="utf-8"))["scorer"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = type(error).__name__
            raise StoreError(f"{path} is damaged ({reason}); delete the folder {self.folder}, and score again") from error

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody else may do this until it is left; what a killed process left half written is deleted.

        Raises:
            StoreError: when somebody does, or the disk refuses.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / _LOCK).open("a")
        except OSError as error:
            raise StoreError(f"cannot write scores to {self.folder}: {error.strerror or error}; make access there") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"another process is adding scores '{self.scorer}' to {self.folder.parent.parent}; wait for it, or choose "
                    "another name"
                ) from error
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            yield

    def claim(self, identity: Identity) -> None:
        """Write down who the scorer is; the same one may do so again.

        Raises:
            StoreError: when the name is another one's, or the disk refuses.
        """
        before = self.identity()
        if before is None:
            self._put(_ABOUT, json.dumps({"version": 1, "scorer": asdict(identity)}, indent=1).encode())
            return
        if before.weights != identity.weights or before.vocabulary != identity.vocabulary:
            what = "weights" if before.weights != identity.weights else "vocabulary"
            raise StoreError(
                f"the scores '{self.scorer}' in {self.folder.parent.parent} were given by model '{before.model}' "
                f"({what} {getattr(before, what)[:12]}), and '{identity.model}' is another ({what} "
                f"{getattr(identity, what)[:12]}); choose another name for its scores"
            )
        if before.prompt != identity.prompt:
            raise StoreError(
                f"the scores '{self.scorer}' in {self.folder.parent.parent} were given behind the {before.prompt}'s prompts, "
                f"and these would be behind the {identity.prompt}'s; choose another name for them"
            )

    def parts(self, batch: str) -> list[Part]:
        """The files of a batch, in the order of their rows.

        Raises:
            StoreError: when one is damaged.
        """
        return [_part(path) for path in sorted(self.paths(batch))]

    def write(self, batch: str, sha256: str, start: int, rows: Sequence[Row], *, k: int = 0, entropy: bool = False) -> Part:
        """Put the scores of consecutive trajectories in place, the first of which is row `start` of the batch.

        Args:
            sha256: of the batch's file, to which they belong.
            rows: all with, or all without, entropies and a top-k of width `k`, as told.

        Raises:
            StoreError: when the disk refuses; what was there is then as it was.
        """
        name = f"{batch}@{start:08d}.parquet"
        self._put(name, _encode(rows, sha256, k, entropy))
        return _part(self.folder / name)

    def problems(self, digests: Mapping[str, Sequence[str]]) -> list[str]:
        """A sentence for each file that cannot be read; one is in memory at a time.

        Args:
            digests: SHA-256 that a batch's file may have; any where a batch is not named.
        """
        found = list[str]()
        checks: list[Callable[[], object]] = [self.identity]
        checks += [partial(_decode, path, digests.get(_batch(path), ())) for path in sorted(self._files())]
        for check in checks:
            try:
                check()
            except StoreError as error:
                found.append(str(error))
        return found

    def drop(self, batch: str) -> None:
        """Delete the scores of a batch.

        Raises:
            OSError: when the disk refuses.
        """
        for path in self.paths(batch):
            path.unlink(missing_ok=True)

    def paths(self, batch: str) -> list[Path]:
        """The files of a batch, in no order."""
        return [path for path in self._files() if _batch(path) == batch]

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob("*@*.parquet") if path.name[0] != "."]

    def _put(self, name: str, data: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace(self.folder / name, data)
        except OSError as error:
            raise StoreError(
                f"cannot write scores to {self.folder}: {error.strerror or error}; what is there is unharmed: make room or "
                "access, then score again"
            ) from error


class Overlay:
    """One scorer's scores of one batch, by row; one file in memory at a time.

    Args:
        digests: SHA-256 that the batch's file may have; none: any.
    """

    def __init__(self, files: ScoreFiles, batch: str, digests: Sequence[str]) -> None:
        self._digests = digests
        self._starts = sorted((_start(path), path) for path in files.paths(batch))
        self._open: tuple[Path, list[Row]] | None = None

    def __bool__(self) -> bool:
        return bool(self._starts)

    def at(self, row: int, trajectory: str, n: int) -> Scores | None:
        """What is said of the trajectory in this row of the batch, which has `n` student tokens.

        Raises:
            StoreError: when the file is damaged, or is of other trajectories.
        """
        place = bisect_right(self._starts, row, key=lambda each: each[0]) - 1
        if place < 0:
            return None
        start, path = self._starts[place]
        if self._open is None or self._open[0] != path:
            self._open = path, _decode(path, self._digests)
        if row - start >= len(self._open[1]):
            return None
        name, scores = self._open[1][row - start]
        if name != trajectory or (scores is not None and len(scores.logprobs) != n):
            raise StoreError(
                f"{path} holds {len(scores.logprobs) if scores else 0} scores of trajectory '{name}' where '{trajectory}' with "
                f"{n} student tokens is; delete it, and score again"
            )
        return scores


def scorers(store: Path) -> list[str]:
    """Names of those who have a folder of scores in a store, sorted."""
    return sorted(unquote(folder.name) for folder in (store / FOLDER).glob("*") if folder.is_dir())


def sizes(parts: Sequence[Part]) -> dict[str, int]:
    """Bytes on disk by column; `file` is what the files have beside their columns."""
    out: Counter[str] = Counter()
    for part in parts:
        about = pq.read_metadata(part.path)
        for group in range(about.num_row_groups):
            for index in range(about.num_columns):
                column = about.row_group(group).column(index)
                out[column.path_in_schema.partition(".")[0]] += column.total_compressed_size
        out["file"] += part.path.stat().st_size
    out["file"] -= sum(size for name, size in out.items() if name != "file")
    return dict(out)


def _encode(rows: Sequence[Row], sha256: str, k: int, entropy: bool) -> bytes:
    numbers = {b"k": k, b"entropy": int(entropy), b"scored": sum(scores is not None for _, scores in rows)}
    about = {_VERSION_KEY: str(_VERSION).encode(), b"batch": sha256.encode()}
    about |= {name: str(number).encode() for name, number in numbers.items()}
    columns: dict[str, list[Any]] = {"id": [escape(name) for name, _ in rows]}
    for name in _SCHEMA.names[1:]:
        values = [None if scores is None else getattr(scores, name) for _, scores in rows]
        columns[name] = [None if each is None else each.reshape(-1) for each in values]
    table = pa.table(columns, schema=_SCHEMA.with_metadata(about))
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="zstd", write_page_checksum=True, use_dictionary=["id", "topk_ids.list.element"],
        use_byte_stream_split=_FLOATS,
    )  # fmt: skip
    return bytes(sink.getvalue())


def _part(path: Path) -> Part:
    def read() -> Part:
        about, n = pq.read_schema(path).metadata, pq.read_metadata(path).num_rows
        scored, k, entropy, batch = (about[name].decode() for name in (b"scored", b"k", b"entropy", b"batch"))
        return Part(path, _start(path), n, int(scored), int(k), entropy == "1", batch)

    return _reading(path, read)


def _batch(path: Path) -> str:
    return path.name.rpartition("@")[0]


def _start(path: Path) -> int:
    return int(path.stem.rpartition("@")[2])


def _decode(path: Path, digests: Sequence[str]) -> list[Row]:
    def read() -> tuple[Mapping[bytes, bytes], list[Row]]:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
        about = table.schema.metadata or {}
        if int(about[_VERSION_KEY]) > _VERSION:
            raise ValueError(f"its version is {int(about[_VERSION_KEY])}, and this agentdistill reads up to {_VERSION}")
        k = int(about[b"k"])
        return about, [_row(row, k) for row in _unpacked(table)]

    about, rows = _reading(path, read)
    if digests and about[b"batch"].decode() not in digests:
        raise StoreError(f"{path} holds scores of a file that is not the batch's any more; score again")
    return rows


def _unpacked(table: pa.Table) -> list[dict[str, Any]]:
    """Rows with arrays instead of lists of Python numbers."""
    names = table.column_names
    columns = [table.column(name) for name in names]
    out = []
    for i in range(table.num_rows):
        cells = [column[i] for column in columns]
        out.append(
            {
                name: None
                if not cell.is_valid
                else cell.as_py()
                if name == "id"
                else cell.values.to_numpy(zero_copy_only=False)
                for name, cell in zip(names, cells, strict=True)
            }
        )
    return out


def _row(row: Mapping[str, Any], k: int) -> Row:
    if row["logprobs"] is None:
        return unescape(row["id"]), None

    def column(name: str, kind: type[np.generic], width: int = 0) -> Any:
        values = row[name]
        return None if values is None else values.astype(kind).reshape((-1, width) if width else -1)

    return unescape(row["id"]), Scores(
        logprobs=column("logprobs", np.float64),
        entropy=column("entropy", np.float64),
        topk_ids=column("topk_ids", np.int64, k),
        topk_logprobs=column("topk_logprobs", np.float64, k),
    )


def _reading(path: Path, reader: Callable[[], R]) -> R:
    """What `reader` gives; what reading a file raises becomes a `StoreError`."""
    try:
        return reader()
    except StoreError:
        raise
    except Exception as error:  # a damaged file may hold anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{path} is damaged or no file of scores ({reason}); delete it, and score again") from error
