"""Reading a run's folder: metrics, timings, the experiment and the summary, as far as the run has come."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentdistill.errors import StoreError, UserError
from agentdistill.store import Store
from agentdistill.trajectory import FloatArray, Trajectory

Record = dict[str, Any]


@dataclass(slots=True)
class Run:
    """What a run's folder holds.

    Attributes:
        path, name: the folder, and what the page calls it.
        experiment: the text of `experiment.yaml`, or empty.
        metrics: records of `metrics.jsonl` by kind, in order; of several for one iteration, the last.
        timings: records of `timings.jsonl` that belong to an iteration.
        summary: `summary.json`, or empty while the run is unfinished.
        damaged: how many lines of the two `.jsonl` files could not be read.
        notes: what else a reader of the report should know is missing, a sentence each.
    """

    path: Path
    name: str
    experiment: str = ""
    metrics: dict[str, list[Record]] = field(default_factory=dict)
    timings: list[Record] = field(default_factory=list)
    summary: Record = field(default_factory=dict)
    damaged: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def iterations(self) -> list[Record]:
        """Records of the on-policy iterations."""
        return self.metrics.get("iteration", [])

    def evaluations(self, label: str, temperature: float | None = None) -> list[Record]:
        """Evaluation records of a label (`before`, `during`, `after`, `teacher`), at one temperature or at all."""
        found = [record for record in self.metrics.get("eval", []) if record.get("label") == label]
        return [r for r in found if temperature is None or number(r.get("temperature")) == temperature]

    @property
    def temperatures(self) -> list[float]:
        """Temperatures that were evaluated at, ascending."""
        values = {number(record.get("temperature")) for record in self.metrics.get("eval", [])}
        return sorted(value for value in values if math.isfinite(value))

    def batches(self, prefix: str) -> list[str]:
        """Names of the stored batches that begin with a prefix, in order."""
        return [name for name in Store(self.path / "store").batches() if name.startswith(prefix)]

    def read(self, batch: str) -> list[Trajectory]:
        """One stored batch; of a damaged one a note remains, and no trajectories."""
        try:
            return Store(self.path / "store").read(batch)
        except StoreError as error:
            if str(error) not in self.notes:
                self.notes.append(str(error))
            return []


def load_run(path: Path) -> Run:
    """Read a run's folder. Lines that cannot be read, such as one cut short by a crash, are skipped and counted.

    Raises:
        UserError: when there is no such folder, or it holds no metrics.
    """
    if not path.is_dir():
        raise UserError(f"there is no run folder '{path}'; name the folder that `train` wrote, such as runs/quickstart")
    run = Run(path, path.resolve().name)
    records, damaged = _read_lines(path / "metrics.jsonl")
    known = [record for record in records if isinstance(record.get("kind"), str)]
    timings, damaged_timings = _read_lines(path / "timings.jsonl")
    run.damaged = damaged + damaged_timings + len(records) - len(known)
    if not known:
        raise UserError(
            f"'{path}' holds no metrics to report on (metrics.jsonl is missing or has no whole line); "
            "reports are of training runs, and `agentdistill view` shows stored trajectories of any kind"
        )
    for record in known:
        run.metrics.setdefault(record["kind"], []).append(record)
    run.metrics["iteration"] = _last_by_iteration(run.metrics.get("iteration", []))
    run.timings = _last_by_iteration(timings)
    if (path / "experiment.yaml").is_file():
        run.experiment = (path / "experiment.yaml").read_text(encoding="utf-8", errors="replace")
    run.summary = _read_summary(run)
    return run


def number(value: Any) -> float:
    """A finite number as a float; NaN for null, text, truth values and what is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if math.isfinite(value) else math.nan


def column(records: Iterable[Record], key: str) -> FloatArray:
    """`[n]` one value a record, NaN where it is missing."""
    return np.array([number(record.get(key)) for record in records], dtype=np.float64)


def matrix(records: Sequence[Record], key: str) -> FloatArray:
    """`[n, widest]` a list-valued key, a row a record, filled up with NaN."""
    rows = [value if isinstance(value := record.get(key), list) else [] for record in records]
    out = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for index, row in enumerate(rows):
        out[index, : len(row)] = [number(value) for value in row]
    return out


def _read_lines(path: Path) -> tuple[list[Record], int]:
    """The objects of a JSON-lines file, and how many lines were not objects."""
    if not path.is_file():
        return [], 0
    records, damaged = [], 0
    for line in path.read_bytes().splitlines():
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            damaged += 1
    return records, damaged


def _last_by_iteration(records: Iterable[Record]) -> list[Record]:
    """Records in the order of their iteration; the last one counts where a resumed run repeated one."""
    by_iteration = {number(record.get("iteration")): record for record in records}
    return [by_iteration[n] for n in sorted(n for n in by_iteration if math.isfinite(n))]


def _read_summary(run: Run) -> Record:
    path = run.path / "summary.json"
    if not path.is_file():
        run.notes.append("The run is unfinished: it has no summary.json yet.")
        return {}
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        summary = None
    if not isinstance(summary, dict):
        run.notes.append("summary.json is damaged and was left out.")
        return {}
    return summary
