"""Which steps of a distilled student come from the teacher, which from the student as it was: traced in a run's stored scores.

`signals/provenance.py` has the classes. The distilled student's own log-probs are stored with its tokens; those of the teacher
and of the student before are stored scores, which training leaves for its teacher and `agentdistill score` adds for anybody.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from agentdistill import yamltext
from agentdistill.errors import UserError, nearest
from agentdistill.evaluation import open_run, others_remain
from agentdistill.signals.provenance import Provenance, step_probability
from agentdistill.signals.provenance import provenance as classes_of
from agentdistill.signals.table import TokenTable
from agentdistill.store import Store, token_frame
from agentdistill.store_schema import escape
from agentdistill.trajectory import FloatArray, IntArray, Trajectory
from agentdistill.verbs import callable_as_verb

CLASSES = tuple(each.name.lower() for each in Provenance)
"""In the order of the numbers of `Provenance`: shared, teacher, student, boosted."""
BEFORE = "student"
"""The name under which a run's student before distillation is scored, unless another is given."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of some trajectories, `[n]` each, in their order.

    Attributes:
        trajectory: which of them, from 0.
        turn, step, tokens: the turn a step begins in, its index in the trajectory, and its length.
        teacher, student, distilled: the geometric mean probability of its tokens under each.
        origin: its `Provenance`.
    """

    trajectory: IntArray
    turn: IntArray
    step: IntArray
    tokens: IntArray
    teacher: FloatArray
    student: FloatArray
    distilled: FloatArray
    origin: IntArray


@dataclass(slots=True)
class Origins:
    """How many steps are of each class.

    Attributes:
        teacher, student: the scorers.
        alpha, beta: see `signals.provenance.provenance`.
        counts: by batch, `[turns, 4]`: by the turn of the step and class.
        outcomes: by `success` and `failure` of the episode, `[4]`.
    """

    teacher: str
    student: str
    alpha: float
    beta: float
    counts: dict[str, IntArray] = field(default_factory=dict)
    outcomes: dict[str, IntArray] = field(default_factory=dict)

    def add(self, batch: str, items: Sequence[Trajectory], steps: Steps) -> None:
        """Take in a batch."""
        won = np.array([t.success for t in items])[steps.trajectory]
        counts = np.zeros((int(steps.turn.max(initial=-1)) + 1, len(CLASSES)), dtype=np.int64)
        np.add.at(counts, (steps.turn, steps.origin), 1)
        self.counts[batch] = counts
        for name, mask in (("success", won), ("failure", ~won)):
            before = self.outcomes.get(name, np.zeros(len(CLASSES), dtype=np.int64))
            self.outcomes[name] = before + np.bincount(steps.origin[mask], minlength=len(CLASSES))

    def by_turn(self, batches: Iterable[str] | None = None) -> IntArray:
        """`[turns, 4]` over some batches, all by default."""
        chosen = [self.counts[name] for name in (self.counts if batches is None else batches)]
        out = np.zeros((max((len(each) for each in chosen), default=0), len(CLASSES)), dtype=np.int64)
        for each in chosen:
            out[: len(each)] += each
        return out

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "teacher": self.teacher, "student": self.student, "alpha": self.alpha, "beta": self.beta, "classes": list(CLASSES),
            "by_batch": {name: counts.sum(0).tolist() for name, counts in self.counts.items()},
            "by_turn": self.by_turn().tolist(), "by_outcome": {name: each.tolist() for name, each in self.outcomes.items()},
        }  # fmt: skip

    def tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Headings and rows: by batch (iterations in at most ten groups), by turn, by outcome."""
        head = ["steps", *CLASSES]
        iterations = [name for name in self.counts if name.startswith("iter-")]
        parts = [list(part) for part in np.array_split(iterations, min(10, len(iterations)))] if iterations else []
        named = [(each[0] if len(each) == 1 else f"{each[0]} … {each[-1]}", self.by_turn(each).sum(0)) for each in parts]
        named += [(name, counts.sum(0)) for name, counts in self.counts.items() if name not in iterations]
        turns = [(str(turn), counts) for turn, counts in enumerate(self.by_turn()) if counts.sum()]
        outcomes = [(name, counts) for name, counts in self.outcomes.items() if counts.sum()]
        return [
            ([what, *head], [_row(*row) for row in rows])
            for what, rows in (("batch", named), ("turn", turns), ("episode", outcomes))
        ]


def trace(trajectories: Sequence[Trajectory], *, teacher: str, student: str, alpha: float = 0.1, beta: float = 0.1) -> Steps:
    """Classify the steps of trajectories that both scorers have scored.

    Args:
        trajectories: with student tokens of their own (see `traceable`).
        teacher, student: names of scorers: the teacher, and the student before distillation.
        alpha, beta: see `signals.provenance.provenance`.

    Raises:
        UserError: as `signals.provenance.provenance`.
        StoreError: when there are more or fewer scores than student tokens.
    """
    table = _table(token_frame(_with(trajectories, (teacher, student))), teacher, student)
    steps = table.steps
    first = np.unique(steps.row[table.is_action], return_index=True)[1]
    return Steps(
        steps.trajectory, table.turn[table.is_action][first], steps.step, steps.size,
        step_probability(table, "teacher"), step_probability(table, "student"), step_probability(table, "distilled"),
        classes_of(table, alpha=alpha, beta=beta),
    )  # fmt: skip


def traced_frame(
    trajectories: Sequence[Trajectory], *, teacher: str, student: str, alpha: float = 0.1, beta: float = 0.1
) -> pa.Table:
    """`store.token_frame` of trajectories with one more column: `provenance`, the class of each student token's step.

    Null on other tokens. Raises as `trace`.
    """
    frame = token_frame(_with(trajectories, (teacher, student)))
    table = _table(frame, teacher, student)
    origin = classes_of(table, alpha=alpha, beta=beta)[table.steps.row]
    column = pa.DictionaryArray.from_arrays(pa.array(origin, pa.int8(), mask=~table.is_action), pa.array(CLASSES))
    return frame.append_column("provenance", column)


def traceable(trajectories: Iterable[Trajectory], teacher: str, student: str) -> list[Trajectory]:
    """Those that have student tokens and scores of both."""
    return [t for t in trajectories if t.n_action_tokens and teacher in t.scores and student in t.scores]


def origins(
    store: Store, teacher: str, student: str, batches: Iterable[str], *, alpha: float = 0.1, beta: float = 0.1
) -> Origins:
    """The steps of stored batches, counted; batches without scores of both are passed over."""
    out = Origins(teacher, student, alpha, beta)
    for batch in batches:
        items = traceable(store.read(batch, (teacher, student)), teacher, student)
        if items:
            out.add(batch, items, trace(items, teacher=teacher, student=student, alpha=alpha, beta=beta))
    return out


def provenance(
    run: str | Path, *, teacher: str = "", student: str = BEFORE, batch: str | None = None, alpha: float = 0.1,
    beta: float = 0.1, out: str | Path | None = None,
) -> Origins:  # fmt: skip
    """Which steps of a run's student come from its teacher, and which from the student before.

        ad.score("runs/sod", "runs/sod/student", name="student")
        ad.provenance("runs/sod").by_turn()

    Args:
        run: folder of a run.
        teacher: name of the teacher's scores; the run's own teacher's by default.
        student: name of the scores of the student before distillation.
        batch: one stored batch; by default all that both have scored.
        alpha, beta: how far apart probabilities may lie (see `signals.provenance.provenance`).
        out: a Parquet file for a row a step; not written by default.

    Raises:
        UserError: for an unknown run or batch, and where scores are missing: with the command that makes them.
    """
    store = open_run(run)
    teacher = teacher or teacher_of(Path(run), store)
    batches = [batch] if batch is not None else store.batches()
    with others_remain(store, batch):
        found = origins(store, teacher, student, batches, alpha=alpha, beta=beta)
    if not found.counts:
        there = {name for each in batches for t in store.trajectories(each) for name in t.scores}
        missing = [name for name in (teacher, student) if name not in there]
        near = "".join(dict.fromkeys(nearest(name, there) for name in missing))
        raise UserError(
            f"no stored episode of '{run}' has scores by both '{teacher}' and '{student}'{near}; make them with "
            + " and ".join(f"`{line}`" for line in commands(Path(run), missing or [teacher, student], teacher, student))
        )
    if out is not None:
        _write(Path(out), store, found)
    return found


def teacher_of(folder: Path, store: Store) -> str:
    """The name under which a run's own teacher's scores stand.

    Raises:
        UserError: where there is none, or several.
    """
    experiment = _experiment(folder)
    section = experiment.get("teacher")
    if isinstance(section, dict) and section.get("model"):
        return str(section["model"])
    names = [name for name in store.scorers() if name != BEFORE and not name.startswith("reference:")]
    if len(names) == 1:
        return names[0]
    raise UserError(
        f"'{folder}' does not say whose scores are its teacher's"
        + (f" (there are {', '.join(names)})" if names else "")
        + "; say which by --teacher NAME"
    )


def commands(folder: Path, missing: Sequence[str], teacher: str, student: str) -> list[str]:
    """The commands that make the scores which are missing, with the models as the run's folder has them."""
    experiment, out = _experiment(folder), []
    for name in missing:
        role = {teacher: "teacher", student: "student"}[name]
        section = experiment.get(role)
        model = str(section.get("model", "")) if isinstance(section, dict) else ""
        own = folder / role
        scorer = f"{name}={own if own.is_dir() else model or f'MODEL-OF-THE-{role.upper()}'}"
        out.append(f"agentdistill score {shlex.quote(str(folder))} --scorer {shlex.quote(scorer)}")
    return out


def _experiment(folder: Path) -> dict[str, Any]:
    try:
        raw = yamltext.read((folder / "experiment.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UserError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _with(trajectories: Sequence[Trajectory], scorers: Sequence[str]) -> list[Trajectory]:
    for t in trajectories:
        for name in scorers:
            if name not in t.scores:
                raise UserError(f"trajectory '{t.id}' has no scores by '{name}'{nearest(name, t.scores)}")
        if not t.n_action_tokens:
            raise UserError(f"trajectory '{t.id}' has no student token, so no step of it has an origin")
    return list(trajectories)


def _table(frame: pa.Table, teacher: str, student: str) -> TokenTable:
    columns: dict[str, Any] = {"trajectory": frame["trajectory"].combine_chunks().indices.to_numpy()}
    for name in ("turn", "step", "is_action"):
        columns[name] = frame[name].to_numpy()
    columns["distilled"] = frame["logprob_t1"].to_numpy()
    for column, name in (("teacher", teacher), ("student", student)):
        columns[column] = frame[f"logprob.{escape(name)}"].to_numpy()
    return TokenTable(columns)


def _write(path: Path, store: Store, found: Origins) -> None:
    import pyarrow.parquet as pq

    from agentdistill.durable import replace

    parts = []
    for batch in found.counts:
        items = traceable(store.read(batch, (found.teacher, found.student)), found.teacher, found.student)
        steps = trace(items, teacher=found.teacher, student=found.student, alpha=found.alpha, beta=found.beta)
        named = {name: getattr(steps, name) for name in ("turn", "step", "tokens", "teacher", "student", "distilled")}
        ids, kinds = [escape(items[i].id) for i in steps.trajectory], [CLASSES[i] for i in steps.origin]
        parts.append(pa.table({"batch": [batch] * len(ids), "trajectory": ids, **named, "provenance": kinds}))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(parts), sink, compression="zstd")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, bytes(sink.getvalue()))
    except OSError as error:
        raise UserError(f"'{path}' could not be written: {error.strerror}") from error


def _row(name: str, counts: IntArray) -> list[str]:
    total = int(counts.sum())
    return [name, f"{total:,}", *(f"{count / max(1, total):.1%}" for count in counts)]


callable_as_verb(__name__)
