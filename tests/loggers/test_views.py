"""What the real W&B, TensorBoard and trackio hold of a run that was killed and resumed: `metrics.jsonl`, once."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentdistill.loggers import Entry
from tests.loggers.wandb_file import history
from tests.needs import needs
from tests.training.scored_run import RUN

ROOT = Path(__file__).parents[2]
PACKAGES = ("wandb", "tensorboard", "trackio")


def run(out: Path, code: int, **variables: str) -> str:
    """One session of the run, with every back-end that this machine has."""
    backends = [name for name in PACKAGES if importlib.util.find_spec(name) is not None]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")} | {
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRACKIO_DIR": str(out.parent / "trackio"), **variables,
    }  # fmt: skip
    words = [sys.executable, "-m", "tests.loggers.logged_run", str(out), *backends]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run: killed after its first iteration, which it has no checkpoint of, and resumed."""
    out = tmp_path_factory.mktemp("logged") / "run"
    run(out, -9, KILL="iteration 1/2")
    said = run(out, 130, STOP="after: success")  # all is measured; the report would only take its time
    assert "iteration 1/2" in said  # it is played again
    assert "failed and is off" not in said
    return out


def expected(folder: Path) -> list[Entry]:
    """What the lines of a run's files come to."""

    def lines(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / name).read_text().splitlines()]

    times = {timing["iteration"]: timing for timing in lines("timings.jsonl")}
    return [
        Entry.of(n, record, times.get(record["iteration"]) if record["kind"] == "iteration" else None)
        for n, record in enumerate(lines("metrics.jsonl"))
    ]


def with_axis(entry: Entry) -> dict[str, float]:
    return {**entry.values, "iteration": entry.at} if entry.axis == "iteration" else entry.values


def timeless(values: dict[str, float]) -> dict[str, float]:
    """Without wall times, which a database of an iteration that was played again has of the first time."""
    return {name: value for name, value in values.items() if not name.startswith("timing/")}


def test_metrics_are_the_same_to_the_byte_with_and_without_back_ends(logged: Path, guess_run: Path):
    assert (logged / "metrics.jsonl").read_bytes() == (guess_run / "metrics.jsonl").read_bytes()
    assert RUN["train"]["iterations"] == 2


def test_wandb_has_every_line_once_with_exactly_its_numbers(logged: Path):
    needs("wandb", "pip install 'agentdistill[wandb]'")
    (path,) = (logged / "wandb").glob("offline-run-*/*.wandb")
    rows, entries = history(path), expected(logged)
    assert [row["_step"] for row in rows] == list(range(len(entries)))
    for row, entry in zip(rows, entries, strict=True):
        assert {name: value for name, value in row.items() if not name.startswith("_")} == with_axis(entry)
    assert path.name == f"run-{(logged / 'id').read_text().strip()}.wandb"


def test_tensorboard_has_every_number_as_it_is(logged: Path):
    needs("tensorboard", "pip install 'agentdistill[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    found = EventAccumulator(str(logged / "tensorboard"), size_guidance={"tensors": 0})
    found.Reload()
    wanted: dict[str, list[tuple[int, float]]] = {}
    for entry in expected(logged):
        for name, value in entry.values.items():
            wanted.setdefault(name, []).append((entry.at, value))
    assert sorted(found.Tags()["tensors"]) == sorted(wanted)
    for name, points in wanted.items():
        assert [(e.step, tensor_util.make_ndarray(e.tensor_proto).item()) for e in found.Tensors(name)] == points


def test_trackio_has_every_line_once_with_exactly_its_numbers(logged: Path):
    needs("trackio", "pip install 'agentdistill[trackio]'")
    with sqlite3.connect(logged.parent / "trackio" / "tests.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
    entries = expected(logged)
    assert [(name, step) for name, step, _ in rows] == [
        (f"guess-{(logged / 'id').read_text()[:6]}", entry.line) for entry in entries
    ]
    for (_, _, metrics), entry in zip(rows, entries, strict=True):
        assert timeless(json.loads(metrics)) == timeless(with_axis(entry))
