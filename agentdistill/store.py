"""The trajectory store: a folder of zstd Parquet files, one per rollout batch, a row a trajectory.

A file appears whole or not at all: it is written under a temporary name, synced and renamed, so a crash at any moment
leaves the earlier batches, and the earlier file of the same batch, as they were. One process writes a store at a time;
any number may read it. `store_schema` says how a trajectory is laid out in a row, `store_index` which files there are,
`store_scores` where scores are that were added afterwards.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from agentdistill.durable import digest, replace, sync
from agentdistill.errors import StoreError, nearest
from agentdistill.store_index import Index
from agentdistill.store_schema import SCHEMA, VERSION, VERSION_KEY, escape, from_row, to_row, unescape
from agentdistill.store_scores import Overlay, ScoreFiles, scorers
from agentdistill.trajectory import FloatArray, Trajectory

Column = NDArray[Any]

_BATCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")
_ROWS = 128  # trajectories a row group: what a reader holds in memory at once


class Store:
    """A folder of trajectory files.

    Args:
        path: the folder. It is made at the first write; until then the store is empty.

    Raises:
        StoreError: when `path` is something other than a folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"the store {self.path} is not a folder; name the folder that holds the .parquet files")
        self._index = Index(self.path)

    def write(self, batch: str, trajectories: Sequence[Trajectory]) -> Path:
        """Write one batch, replacing an earlier one of the same name and the scores it was given, and return the file.

        Raises:
            StoreError: when the batch's name cannot be a file name, when a trajectory holds a value that the schema has
                no place for, or when the disk refuses (full, read-only); the store is then as it was.
        """
        data = _encode(batch, trajectories)
        with self._writing(batch) as final:
            self._index.announce(batch, hashlib.sha256(data).hexdigest())
            self._drop_scores([batch])
            replace(final, data)
        return final

    def write_stream(self, batch: str, trajectories: Iterable[Trajectory]) -> Path:
        """As `write`, for more trajectories than memory holds: a row group is in memory at a time, and no file is in place
        before the last of them; what the iterable raises leaves the store as it was."""
        with self._writing(batch) as final:
            temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
            try:
                with temporary.open("wb") as file:
                    _encode_to(file, batch, trajectories)
                sync(temporary)
                self._index.announce(batch, digest(temporary))
                self._drop_scores([batch])
                temporary.replace(final)
                sync(self.path)
            finally:
                temporary.unlink(missing_ok=True)
        return final

    def batches(self) -> list[str]:
        """Names of the stored batches, sorted."""
        return sorted(file.stem for file in self.path.glob("*.parquet") if not file.name.startswith("."))

    def read(self, batch: str, scorers: Collection[str] | None = None) -> list[Trajectory]:
        """The trajectories of one batch, in the order they were written.

        Args:
            scorers: whose scores come with them; everybody's by default.

        Raises:
            StoreError: when there is no such batch, or its file is damaged, foreign, or of a newer schema; likewise for files
                of scores.
        """
        return list(self._rows(batch, scorers))

    def trajectories(
        self, batches: str | Iterable[str] | None = None, scorers: Collection[str] | None = None
    ) -> Iterator[Trajectory]:
        """The trajectories of a batch, of some, or of all in the order of their names, a row group in memory at a time.

        Raises:
            StoreError: as `read`, when the batch in question is reached.
        """
        wanted = [batches] if isinstance(batches, str) else self.batches() if batches is None else batches
        for batch in wanted:
            yield from self._rows(batch, scorers)

    def pick(self, batch: str, rows: Iterable[int], scorers: Collection[str] | None = None) -> list[Trajectory]:
        """Some trajectories of a batch, by their places in it, in that order; only the row groups they are in are read.

        Raises:
            StoreError: as `read`.
        """
        return list(self._rows(batch, scorers, set(rows)))

    def size(self, batch: str) -> int:
        """How many trajectories a batch has.

        Raises:
            StoreError: as `read`.
        """
        with self._reading(batch) as file:
            return int(file.metadata.num_rows)

    def named(self, batch: str) -> set[str]:
        """Names of the scorers whose scores stand in a batch's own file.

        Raises:
            StoreError: as `read`.
        """
        with self._reading(batch) as file:
            column = file.read(columns=["scores.list.element.scorer"]).column("scores").combine_chunks()
            return {unescape(each) for each in column.flatten().field("scorer").unique().to_pylist()}

    def digest(self, batch: str) -> str:
        """SHA-256 of a batch's file as it is.

        Raises:
            StoreError: when it cannot be read.
        """
        with self._reading(batch):
            return digest(self._file(batch))

    def scores(self, scorer: str) -> ScoreFiles:
        """The files of what a scorer was asked for afterwards; there need not be any."""
        return ScoreFiles(self.path, scorer)

    def scorers(self) -> list[str]:
        """Names of the scorers that are known by more than the trajectories they scored, sorted."""
        return scorers(self.path)

    def discard_after(self, which: Callable[[str], bool] | Iterable[str]) -> list[str]:
        """Delete batches, which a resumed run does with those that came after its checkpoint.

        Args:
            which: batch names (names that are not there are passed over), or a predicate on names.

        Returns:
            The names of the deleted batches, sorted.

        Raises:
            StoreError: when a file cannot be deleted.
        """
        wanted = {which} if isinstance(which, str) else None if callable(which) else set(which)
        gone = [name for name in self.batches() if (which(name) if callable(which) else name in (wanted or ()))]
        try:
            self._index.forget(gone)
            self._drop_scores(gone)
            for name in gone:
                self._file(name).unlink(missing_ok=True)
            if gone:
                sync(self.path)
        except OSError as error:
            raise StoreError(f"cannot delete from the store {self.path}: {error.strerror or error}") from error
        return gone

    def problems(self) -> list[str]:
        """A sentence for each batch that was written and is gone, or whose file is not the one that was written.

        Raises:
            StoreError: when the store's index is damaged.
        """
        return self._index.problems()

    def score_problems(self) -> list[str]:
        """A sentence for each file of scores that is damaged, or whose batch is another one by now.

        Raises:
            StoreError: when the store's index is damaged.
        """
        known = {batch: list(entry.values()) for batch, entry in self._index.read().items()}
        return [problem for name in self.scorers() for problem in self.scores(name).problems(known)]

    def require_whole(self, batches: Collection[str] | None = None) -> None:
        """Refuse a store of which something is lost or altered, before anything is made of it.

        Args:
            batches: which are looked at; all by default.

        Raises:
            StoreError: with the first of the problems, and how many there are.
        """
        if found := self._index.problems(batches):
            more = f" ({len(found) - 1} other batches are damaged too; `agentdistill replay` names them)" if found[1:] else ""
            raise StoreError(found[0] + more)

    def _file(self, batch: str) -> Path:
        return self.path / f"{batch}.parquet"

    def _drop_scores(self, batches: Iterable[str]) -> None:
        """Delete what was added to batches that are about to go: it belongs to their present files."""
        for files in map(self.scores, self.scorers()):
            for batch in batches:
                files.drop(batch)

    def _rows(
        self, batch: str, scorers: Collection[str] | None = None, wanted: Collection[int] | None = None
    ) -> Iterator[Trajectory]:
        with self._reading(batch) as file:
            overlays = self._overlays(batch, self.scorers() if scorers is None else scorers)
            columns = [name for name in file.schema_arrow.names if name != "scores" or scorers is None or scorers]
            first = 0
            for group in range(file.num_row_groups):
                places = range(first, first + file.metadata.row_group(group).num_rows)
                first = places.stop
                chosen = places if wanted is None else sorted(set(places) & set(wanted))
                if not chosen:
                    continue
                table = file.read_row_group(group, columns)
                if wanted is not None:
                    table = table.take([place - places.start for place in chosen])
                for place, trajectory in zip(chosen, map(from_row, table.to_pylist()), strict=True):
                    if scorers is not None:
                        trajectory.scores = {name: each for name, each in trajectory.scores.items() if name in scorers}
                    for name, overlay in overlays.items():
                        if (found := overlay.at(place, trajectory.id, trajectory.n_action_tokens)) is not None:
                            trajectory.scores[name] = found
                    yield trajectory

    def _overlays(self, batch: str, scorers: Iterable[str]) -> dict[str, Overlay]:
        """What was added to a batch, by scorer, where there is any."""
        digests = list(self._index.read().get(batch, {}).values()) if any(map(self._has_scores, scorers)) else []
        found = {name: Overlay(self.scores(name), batch, digests) for name in scorers if self._has_scores(name)}
        return {name: overlay for name, overlay in found.items() if overlay}

    def _has_scores(self, scorer: str) -> bool:
        return self.scores(scorer).folder.is_dir()

    @contextmanager
    def _writing(self, batch: str) -> Iterator[Path]:
        """The file of a batch that is about to be put in place, announced and all; what the disk refuses is a `StoreError`."""
        if not _BATCH_NAME.fullmatch(batch):
            raise StoreError(f"'{batch}' cannot name a batch; use letters, digits and . _ = + -, the first a letter or digit")
        final = self._file(batch)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for leftover in self.path.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            yield final
            self._index.settle(batch)
        except OSError as error:
            raise StoreError(
                f"cannot write batch '{batch}' to {final}: {error.strerror or error}; earlier batches are unharmed: "
                "make room or access there, then resume"
            ) from error

    @contextmanager
    def _reading(self, batch: str) -> Iterator[pq.ParquetFile]:
        """A batch's file; what reading it raises becomes a `StoreError`."""
        path = self._file(batch)
        if not _BATCH_NAME.fullmatch(batch) or not path.is_file():
            raise StoreError(f"the store {self.path} has no batch '{batch}'{nearest(batch, self.batches())}")
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                _check_version(path, file.schema_arrow)
                yield file
        except StoreError:
            raise
        except Exception as error:  # a damaged file may hold anything
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(
                f"{path} is damaged or not a trajectory file ({reason}); delete it, or restore it from a copy"
            ) from error


def token_frame(trajectories: Iterable[Trajectory]) -> pa.Table:
    """The flat token table: a row a token, in the order of the trajectories and their streams.

    Columns: `trajectory` (id), `segment`, `turn`, `step` (-1 outside student tokens), `is_action`, `token_id`,
    `logprob` (nats, at the sampling temperature), `logprob_t1` (at temperature 1), and for each scorer
    `logprob.<scorer>`: its log-probability of each student token. Real columns are NaN where there is no value.

    Raises:
        StoreError: when a trajectory's log-probs or scores are not one a student token.
    """
    items = list(trajectories)
    scorers = list(dict.fromkeys(name for item in items for name in item.scores))
    names = ["segment", "turn", "step", "is_action", "token_id", "logprob", "logprob_t1"]
    parts: dict[str, list[Column]] = {name: [] for name in [*names, *scorers]}
    lengths: list[int] = []
    for item in items:
        stream = item.stream()
        n = len(stream.ids)
        if len(stream.logprobs) != n or len(stream.logprobs_t1) != n:
            raise StoreError(f"trajectory '{item.id}' does not have one log-prob a student token")
        lengths.append(n)
        values = [stream.segment, stream.turn, stream.step, stream.is_action, stream.ids]
        for name, column in zip(names, [*values, stream.logprobs, stream.logprobs_t1], strict=True):
            parts[name].append(column)
        for name in scorers:
            parts[name].append(_aligned(item, name, stream.is_action))
    types = dict.fromkeys(names[:3], pa.int32()) | {"is_action": pa.bool_(), "token_id": pa.int32()}
    ids = pa.DictionaryArray.from_arrays(
        pa.array(np.repeat(np.arange(len(items)), lengths), pa.int32()),
        pa.array([escape(item.id) for item in items], pa.string()),
    )
    columns = {"trajectory": ids}
    for name in names:
        columns[name] = pa.array(_joined(parts[name]), types.get(name, pa.float64()))
    for name in scorers:
        columns[f"logprob.{escape(name)}"] = pa.array(_joined(parts[name]), pa.float64())
    return pa.table(columns)


def _joined(parts: list[Column]) -> Column:
    return np.concatenate(parts) if parts else np.empty(0)


def _aligned(item: Trajectory, scorer: str, is_action: Column) -> FloatArray:
    """A scorer's log-probs at the student tokens of a stream, NaN elsewhere."""
    column = np.full(len(is_action), np.nan)
    if scorer in item.scores:
        column[is_action] = item.scores_by(scorer).logprobs
    return column


def _encode(batch: str, trajectories: Sequence[Trajectory]) -> bytes:
    """One batch as the bytes of a Parquet file; a file is whole in memory before the disk is touched."""
    sink = pa.BufferOutputStream()
    _encode_to(sink, batch, trajectories)
    return bytes(sink.getvalue())


def _encode_to(sink: Any, batch: str, trajectories: Iterable[Trajectory]) -> None:
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        rows = iter(trajectories)
        while part := list(islice(rows, _ROWS)):
            try:
                writer.write_table(pa.Table.from_pylist([to_row(item) for item in part], SCHEMA))
            except (pa.ArrowException, OverflowError, TypeError) as error:
                raise StoreError(f"batch '{batch}' holds a value that the store has no place for: {error}") from error


def _check_version(path: Path, schema: pa.Schema) -> None:
    found = (schema.metadata or {}).get(VERSION_KEY)
    if found is None:
        raise ValueError(f"its metadata have no {VERSION_KEY.decode()}")
    if int(found) > VERSION:
        raise StoreError(
            f"{path} has trajectory schema {int(found)}, and this agentdistill reads up to {VERSION}; "
            "upgrade agentdistill to read it"
        )
