"""What the viewer reads of a run: trajectories batch by batch, and the facts about its training that belong beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentdistill import curricula, yamltext
from agentdistill.errors import StoreError, UserError, nearest
from agentdistill.report.data import Run, load_run, number
from agentdistill.report.examples import load_decoder
from agentdistill.report.text import Decode
from agentdistill.signals import Method
from agentdistill.store import Store
from agentdistill.trajectory import StopReason, Trajectory

_ITERATION = re.compile(r"iter-(\d+)")
_REFERENCE = "reference:"
STOPS = {
    StopReason.TERMINATED: "the environment reached an end of its own",
    StopReason.TRUNCATED: "the environment's own step limit",
    StopReason.MAX_TURNS: "the experiment's turn limit",
    StopReason.DEPTH: "the curriculum's depth for this iteration",
    StopReason.PROMPT_OVERFLOW: "the next prompt would have left no room for an answer",
    StopReason.ENV_ERROR: "the environment failed",
}


@dataclass(slots=True)
class Source:
    """A run's folder, or that of a rollout or an evaluation.

    Attributes:
        run: the folder; its `notes` name what could not be read.
        batches: names of the batches to show, in order.
        method: how the run turns scores into advantages, or None where no experiment says.
        schedule: the experiment's depth schedule in words, or an empty string.
        max_turns: the experiment's turn limit, or None.
        depth: by iteration, the smallest turn limit that the schedule set.
        model: the experiment's student.
        teacher: the scorer that training took for the teacher, or None where nothing was trained.
    """

    run: Run
    batches: list[str]
    method: Method | None = None
    schedule: str = ""
    max_turns: int | None = None
    depth: dict[int, int] = field(default_factory=dict)
    model: str = ""
    teacher: str | None = None

    def note(self, text: str) -> None:
        """Add a sentence about what is missing, once."""
        if text not in self.run.notes:
            self.run.notes.append(text)

    def read(self) -> Iterator[tuple[str, list[Trajectory]]]:
        """Batches with their trajectories; of a damaged one a note remains, and no trajectories."""
        for batch in self.batches:
            yield batch, self.run.read(batch)

    def decoder(self) -> Decode | None:
        """What gives the text of token ids; None, and a note, where no tokenizer is found."""
        return load_decoder(self.run, [Path(self.model)] if self.model else [])


def open_source(folder: Path, batches: Sequence[str] = ()) -> Source:
    """Look a run's folder over.

    Args:
        folder: holds `store/`; `experiment.yaml` and `metrics.jsonl` add to what is shown.
        batches: which batches to show; all by default.

    Raises:
        UserError: when there is no such folder, nothing is stored in it, or a batch is named that is not there.
    """
    if not folder.is_dir():
        raise UserError(f"there is no run folder '{folder}'; name the folder that `train`, `rollout` or `eval` wrote")
    store = Store(folder / "store")
    known, lost = store.batches(), store.problems()
    if not known:
        raise UserError("; ".join(lost) or f"'{folder}' holds no trajectories to view: there is no .parquet file in its store")
    for name in batches:
        if name not in known:
            raise UserError(f"'{folder}' has no batch '{name}'{nearest(name, known)}")
    try:
        run = load_run(folder)
        run.notes.clear()
    except UserError:  # a rollout or an evaluation has no metrics
        run = Run(folder, folder.resolve().name)
    run.notes += lost
    source = Source(run, sorted((name for name in known if not batches or name in batches), key=_as_played))
    source.teacher = _teacher(store, known)
    for record in run.iterations:
        iteration, depth = number(record.get("iteration")), number(record.get("depth"))
        if math.isfinite(depth) and math.isfinite(iteration):
            source.depth[int(iteration)] = int(depth)
    _read_experiment(source, folder / "experiment.yaml")
    return source


def _as_played(batch: str) -> tuple[int, str]:
    """Sorts batches: what was there before training, the iterations, and then the rest."""
    return (0 if batch.startswith("eval-before") else 1 if iteration_of(batch) else 2), batch


def _teacher(store: Store, batches: Sequence[str]) -> str | None:
    """The teacher of the first batch that was trained on."""
    first = next((name for name in batches if iteration_of(name)), None)
    try:
        found = [] if first is None else store.pick(first, [0])
    except StoreError:  # told when it is read
        return None
    return teacher_of(found[0]) if found else None


def iteration_of(batch: str) -> int | None:
    """The iteration that a batch was played in, from 1, or None for evaluations and the like."""
    found = _ITERATION.fullmatch(batch)
    return int(found[1]) if found else None


def teacher_of(trajectory: Trajectory) -> str | None:
    """The scorer that training took for the teacher: the first that is no reference model."""
    return next((name for name in trajectory.scores if not name.startswith(_REFERENCE)), None)


def reference_of(trajectory: Trajectory) -> str | None:
    """The reference model among the scorers, or None."""
    return next((name for name in trajectory.scores if name.startswith(_REFERENCE)), None)


def _read_experiment(source: Source, path: Path) -> None:
    """Take over what the experiment says; a part that cannot be read leaves a note, and what depends on it is not shown."""
    if not path.is_file():
        return
    try:
        found: Any = yamltext.read(path.read_text(encoding="utf-8"))
        played_only = source.run.metrics == {}  # the method in the file of a rollout or an evaluation means nothing
        source.model = str(found["student"]["model"])
        source.max_turns = int(found["env"]["max_turns"])
        if not played_only:
            source.method = Method.load(found["method"])
            schedule = found.get("schedule", "none")
            curricula.load(schedule)
            source.schedule = _in_words(schedule)
    except (OSError, UnicodeDecodeError, UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        source.run.notes.append(f"{path} could not be used ({reason}), so advantages and depth may be missing.")


def _in_words(spec: Any) -> str:
    """`tcod-f2b (start 1, every 4)`, or an empty string where there is no schedule."""
    if isinstance(spec, str):
        return "" if spec == "none" else spec
    settings = ", ".join(f"{key} {value}" for key, value in spec.items() if key != "kind")
    return f"{spec['kind']} ({settings})" if settings else str(spec["kind"])
