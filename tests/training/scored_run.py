"""A small finished run whose store is scored, shown under other methods, and trained from."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from agentdistill import api

SFT = {"demonstrations": 16, "steps": 12, "batch": 4}
RUN: dict[str, Any] = {
    "name": "guess",
    "env": {"id": "lab/Guess-v0", "max_turns": 4, "max_context": 128},
    "student": {"model": "tiny:32x1", "sft": SFT},
    "teacher": {"model": "tiny:32x2", "sft": SFT},
    "method": "sod",
    "sampling": {"max_tokens": 4},
    "train": {"iterations": 2, "tasks": 3, "rollouts": 2, "checkpoint_every": 1},
    "eval": {"tasks": 4, "temperature": 1.0},
}


def play(folder: Path) -> Path:
    """The run, in `folder`."""
    api.train(RUN, out=folder, say=lambda _: None)
    return folder


def measured(raw: dict[str, Any], folder: Path) -> list[str]:
    """An experiment's run up to its last evaluation, since a report takes its time; what it said."""
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if text.startswith("after: success"):
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        api.train(raw, out=folder, say=say)
    return said


def iterations(folder: Path) -> list[dict[str, Any]]:
    """The `iteration` records of a run."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "iteration"]


class Stopped(Exception):
    """What ends a session in the middle."""


def stopped_and_resumed(experiment: dict[str, Any], out: Path, at: str) -> Path:
    """Train until a line of progress begins so, then resume to the end; the run's folder."""

    def stop(line: str) -> None:
        if line.startswith(at):
            raise Stopped

    with pytest.raises(Stopped):
        api.train(experiment, out=out, say=stop)
    return api.train(experiment, out=out, resume=True, say=lambda _: None).folder
