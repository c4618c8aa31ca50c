"""A run's folder: metrics, timings, checkpoints, and the one file that says how far the run has come.

`progress.json` is replaced in one rename, after everything it points to is on disk. It holds how long `metrics.jsonl` was, so
that a resumed run cuts off what the killed one wrote after its last checkpoint and writes the same lines again; and SHA-256
digests of every file that a resumed run reads back.
Wall times go to `timings.jsonl`, so that `metrics.jsonl` is the same to the byte however often a run was interrupted.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from agentdistill.durable import digest, replace, sync
from agentdistill.errors import UserError
from agentdistill.training.integrity import RESTORE, seal, verify
from agentdistill.training.progress import Checkpoint, Log, Progress, damaged, read_progress, untouched
from agentdistill.training.state import writing

LOGS: tuple[Log, ...] = ("metrics.jsonl", "timings.jsonl")


class Journal:
    """One run's folder, locked while this object lives.

    Args:
        folder: made if it does not exist.
        claim: looks at the stored progress (None where there is none) once the folder is locked and before anything in it is
            changed, and gives the progress to go on from; it raises to refuse.

    Attributes:
        notes: what the user should be told of the folder, a sentence each.
        heard: called after every line that is written.

    Raises:
        UserError: when another process works in the folder, it cannot be written, or what a resumed run needs of it is
            missing or damaged; nothing is changed then.
    """

    def __init__(
        self, folder: Path, claim: Callable[[Progress | None], Progress] = lambda stored: stored or untouched()
    ) -> None:
        self.folder, self.notes = folder, list[str]()
        self.heard: Callable[[], None] = lambda: None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (folder / ".lock").open("w")
        except OSError as error:
            raise UserError(f"run folder '{folder}' cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise UserError(f"another process is working in '{folder}'; wait for it, or choose another --out") from error
        try:
            self._open(claim)
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Give the folder up."""
        self._lock.close()

    @property
    def seconds(self) -> float:
        """Wall time of the run so far in seconds, earlier sessions up to their last checkpoint included."""
        return time.perf_counter() - self._began

    @property
    def begun(self) -> bool:
        """Whether there is anything to go on from: a finished stage or a checkpoint."""
        return bool(self.progress.done) or self.progress.checkpoint is not None

    def metric(self, kind: str, **values: Any) -> None:
        """Append one line to `metrics.jsonl`. Numbers that are not finite become null."""
        self._append("metrics.jsonl", {"kind": kind, **values})

    def timing(self, **values: Any) -> None:
        """Append one line to `timings.jsonl` (seconds)."""
        self._append("timings.jsonl", values)

    def done(self, stage: str) -> bool:
        """Whether a stage is finished."""
        return stage in self.progress.done

    def finish(self, stage: str, *outputs: Path) -> None:
        """Mark a stage as finished and seal the files and folders it leaves behind; its checkpoints go.

        Raises:
            UserError: when an output cannot be read back.
        """
        if self.done(stage):
            return
        try:
            sealed = seal(self.folder, outputs)
        except OSError as error:
            raise UserError(f"what stage '{stage}' wrote cannot be read back: {error}; go on with --resume") from error
        self._commit(done={**self.progress.done, stage: sealed}, checkpoint=None)
        self._sweep()

    def checkpoint(self, stage: str, step: int, save: Callable[[Path], None], state: Mapping[str, Any]) -> None:
        """Write a checkpoint with `save(folder)` and make it the one a resumed run starts from."""
        parent = self.folder / "checkpoints"
        target, partial = parent / f"{stage}-{step:06d}", parent / f".{stage}-{step:06d}.partial"
        try:
            with writing(f"checkpoint '{target}'"):
                for stale in (partial, target):
                    shutil.rmtree(stale, ignore_errors=True)
                partial.mkdir(parents=True)
                save(partial)
                files = seal(partial, [partial])
                partial.rename(target)
                sync(parent)
        except UserError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self._commit(checkpoint={"stage": stage, "step": step, "files": files, "state": dict(state)})
        self._sweep()

    def resume_point(self, stage: str, last: int) -> tuple[Path, int, dict[str, Any]] | None:
        """Folder, step and state of the stage's checkpoint, or None to start it from the beginning.

        Args:
            last: the last step of the stage that can have a checkpoint.

        Raises:
            UserError: when the checkpoint claims to be later than that.
        """
        link = self.progress.checkpoint
        if link is None or link.stage != stage:
            return None
        if link.step > last:
            reason = f"the checkpoint of '{stage}' is of step {link.step}, and the last possible is {last}"
            raise UserError(damaged(self.folder / "progress.json", reason))
        return self._checkpoint_folder(link), link.step, dict(link.state)

    def _open(self, claim: Callable[[Progress | None], Progress]) -> None:
        stored = read_progress(self.folder / "progress.json")
        self.progress = claim(stored)
        self._began = time.perf_counter() - self.progress.seconds
        for stage, files in self.progress.done.items():
            verify(self.folder, files, stage)
        if (link := self.progress.checkpoint) is not None:
            verify(self._checkpoint_folder(link), link.files, f"{link.stage}, step {link.step}")
        for name in LOGS:
            self._cut(name)
        if self.progress is not stored:  # from here on, a folder without progress.json is one that lost it
            self._commit()
            self._sweep()

    def _checkpoint_folder(self, link: Checkpoint) -> Path:
        return self.folder / "checkpoints" / link.name

    def _append(self, name: Log, values: Mapping[str, Any]) -> None:
        line = json.dumps(_finite(dict(values)), ensure_ascii=False)
        try:
            with (self.folder / name).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(_refused(self.folder / name, error)) from error
        self.heard()

    def _commit(self, **changes: Any) -> None:
        sizes = {name: self._size(name) for name in LOGS}
        for name in (name for name, size in sizes.items() if size):
            sync(self.folder / name)
        metrics = digest(self.folder / "metrics.jsonl") if sizes["metrics.jsonl"] else None
        changes |= {"sizes": sizes, "metrics": metrics, "seconds": self.seconds}
        self.progress = Progress.model_validate(self.progress.model_dump() | changes)
        write_atomic(self.folder / "progress.json", self.progress.model_dump_json(indent=1))

    def _size(self, name: Log) -> int:
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def _cut(self, name: Log) -> None:
        """Cut off what was written after the last commit. Metrics are results and must be whole; wall times may be lost."""
        path, size, found = self.folder / name, self.progress.sizes.get(name, 0), self._size(name)
        if found > size:
            os.truncate(path, size)
        elif found < size and name == "metrics.jsonl":
            state = f"is {found} bytes long, and progress.json counts {size}" if path.exists() else "is missing"
            raise UserError(f"'{path}' {state}; {RESTORE}")
        elif found < size:
            self.notes.append(f"'{path}' is missing or cut short: wall times of earlier iterations are lost, results are not")
            if found:
                os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        sealed = self.progress.metrics if name == "metrics.jsonl" else None
        if sealed is not None and digest(path) != sealed:
            raise UserError(
                f"'{path}' is damaged: it is not what the run wrote (its SHA-256 differs from progress.json); {RESTORE}"
            )

    def _sweep(self) -> None:
        """Remove every checkpoint but the one that progress points to."""
        link = self.progress.checkpoint
        for folder in (self.folder / "checkpoints").glob("*"):
            if link is None or folder.name != link.name:
                shutil.rmtree(folder, ignore_errors=True)


def write_atomic(path: Path, text: str) -> None:
    """Replace a file in one rename.

    Raises:
        UserError: when it cannot be written.
    """
    try:
        replace(path, text.encode())
    except OSError as error:
        raise UserError(_refused(path, error)) from error


def _refused(path: Path, error: OSError) -> str:
    return f"'{path}' could not be written: {error.strerror}; make room or access there, then go on"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
