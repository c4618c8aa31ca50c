"""What must hold of a run's folder after every blow, and at its end. Nothing is written here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from agentdistill.errors import UserError
from agentdistill.store import Store
from tests.test_resume import digest, scores

_MODELS = ("teacher", "student", "final")


def store_faults(out: Path, going: bool = False) -> list[str]:
    """The store opens, every file in it is the one that was written and reads to its end, and no episode is in it twice.

    Args:
        going: whether the run goes on; a batch that a resumed one takes back while it is read is no fault, so what is found
            is looked at once more.
    """
    if found := _store_faults(out):
        return _store_faults(out) if going else found
    return []


def _store_faults(out: Path) -> list[str]:
    try:
        store = Store(out / "store")
        found = store.problems() + store.score_problems()
        ids = Counter(t.id for batch in store.batches() for t in store.read(batch))
    except UserError as error:
        return [f"the store does not read: {error}"]
    return found + [f"episode {each} is stored {n} times" for each, n in ids.items() if n > 1]


def metrics_faults(out: Path, undisturbed: Path) -> list[str]:
    """Metrics so far are the beginning of those of the run that nobody disturbed, to the byte."""
    path = out / "metrics.jsonl"
    found = path.read_bytes() if path.exists() else b""
    if (undisturbed / "metrics.jsonl").read_bytes().startswith(found):
        return []
    expected = (undisturbed / "metrics.jsonl").read_text().splitlines()
    lines = found.decode(errors="replace").splitlines()
    for n, line in enumerate(lines):
        if n >= len(expected) or line != expected[n]:
            return [f"line {n + 1} of metrics.jsonl is another than in the undisturbed run:\n  {line}\n  {expected[n : n + 1]}"]
    return ["metrics.jsonl is longer than that of the undisturbed run"]


def end_faults(out: Path, undisturbed: Path) -> list[str]:
    """A finished run is the undisturbed one, bit for bit: metrics, weights, and every episode with its scores, once."""
    found = []
    if (out / "metrics.jsonl").read_bytes() != (undisturbed / "metrics.jsonl").read_bytes():
        found += metrics_faults(out, undisturbed) or ["metrics.jsonl is shorter than that of the undisturbed run"]
    for folder in _MODELS:
        for path in sorted((undisturbed / folder).glob("*.safetensors")):
            if digest(out / folder / path.name) != digest(path):
                found.append(f"{folder}/{path.name} has other weights than in the undisturbed run")
    if episodes(out) != episodes(undisturbed):
        found.append("the stored episodes are not those of the undisturbed run, each once")
    elif scores(out) != scores(undisturbed):
        found.append("stored log-probs or scores are not those of the undisturbed run, bit for bit")
    return found + litter(out)


def same_tasks_faults(out: Path, undisturbed: Path) -> list[str]:
    """Where who plays beside whom may change a last digit, as with `engine.async_rollouts`: what is the same all the same.

    Those are the kinds and numbers of the lines of metrics, their learning rates and numbers of episodes, and which tasks were
    played under which episode's name.
    """
    if [_plain(line) for line in _lines(out)] != [_plain(line) for line in _lines(undisturbed)]:
        return ["metrics.jsonl has other lines, iterations, learning rates or numbers of episodes than the undisturbed run"]
    tasks = [[each[:4] for each in episodes(folder)] for folder in (out, undisturbed)]
    return litter(out) + (["other tasks were played than in the undisturbed run"] if tasks[0] != tasks[1] else [])


def episodes(out: Path) -> list[tuple[Any, ...]]:
    """Every stored episode: batch, name, seed, task, how it ended, what it got and what was said at each of its turns."""
    store = Store(out / "store")
    return [
        (
            batch,
            t.id,
            t.seed,
            t.task_id,
            t.stop_reason,
            t.reward,
            t.success,
            [(turn.action, turn.observation) for turn in t.turns],
        )
        for batch in store.batches()
        for t in store.read(batch)
    ]


def litter(out: Path) -> list[str]:
    """Files that were to be renamed or removed and are still there."""
    left = [path for path in out.rglob("*") if path.name.endswith((".tmp", ".partial"))]
    return [f"{path.relative_to(out)} was left behind" for path in left]


def _lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _plain(line: dict[str, Any]) -> list[Any]:
    return [line.get(name) for name in ("kind", "label", "role", "iteration", "step", "lr", "n")]
