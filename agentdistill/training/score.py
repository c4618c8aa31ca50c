"""From trajectories to the scored token table: one student pass and one teacher pass a segment, sliced afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from agentdistill.policies.base import ScoreRequest, TeacherScorer, TeacherScores
from agentdistill.policies.model import CausalLM, chunk_rows
from agentdistill.policies.shared import budget_batches, states_at
from agentdistill.signals import TokenTable
from agentdistill.signals.divergence import reverse_kl
from agentdistill.signals.logspace import entropy
from agentdistill.signals.parts import Lazy, common_vocabulary
from agentdistill.signals.registry import Measure
from agentdistill.store_table import token_rows
from agentdistill.training.panel import Panel
from agentdistill.trajectory import STUDENT, Author, FloatArray, IntArray, Scores, StopReason, Trajectory


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as a model sees it: ids, positions of student tokens, and those tokens' rows in the token table.

    `teacher` is the same tokens behind the teacher's own prompt, where it has one.
    """

    trajectory: int
    ids: IntArray
    targets: IntArray
    rows: IntArray
    teacher: ScoreRequest


@dataclass(slots=True)
class Scored:
    """A batch ready for a method: the table, its sequences, and the teacher's and the reference's answers, one a sequence.

    The answers are None where nobody gives them. `student` are its columns that tell of the student.
    """

    table: TokenTable
    sequences: list[Segment]
    answers: list[TeacherScores] | None
    references: list[TeacherScores] | None = None
    student: StudentColumns | None = None

    @property
    def kl(self) -> FloatArray:
        """`[n]` reverse KL in nats: exact where the teacher gives distributions, the sampled log-ratio otherwise."""
        values: FloatArray = self.table["logprob"] - self.table["teacher"]
        if "rkl" in self.table:
            values = self.table["rkl"]
        return values

    def settle(self) -> None:
        """Whoever had the student's logits of all its tokens has filled its columns: they are what the table says."""
        if self.student is not None:
            self.table.settle(self.student.filled)


class StudentColumns:
    """What the table tells of the student: a `signals.table.Later`, filled by whoever has the student's logits at hand.

    Args:
        n: rows of the table.
        measured: what is measured against the teacher's distributions, by column.
        own_pass: fills all of it by a pass of its own.
        also: further names for the column `recomputed`.
    """

    def __init__(
        self, n: int, measured: Mapping[str, Measure], own_pass: Callable[[StudentColumns], None], also: Sequence[str] = ()
    ) -> None:
        self._measured, self._own_pass, self._also = dict(measured), own_pass, tuple(also)
        self.values: dict[str, FloatArray] = {name: np.full(n, np.nan) for name in ("recomputed", "entropy", *measured)}

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return (*self.values, *self._also)

    @property
    def measured(self) -> tuple[str, ...]:
        """Those of them that are measured against the teacher's distributions."""
        return tuple(self._measured)

    @property
    def filled(self) -> dict[str, FloatArray]:
        """The columns as they are so far, NaN where nothing was taken."""
        return self.values | dict.fromkeys(self._also, self.values["recomputed"])

    def compute(self) -> dict[str, FloatArray]:
        """The columns, by the pass of their own."""
        self._own_pass(self)
        return self.filled

    def put(self, rows: IntArray, values: Mapping[str, FloatArray]) -> None:
        """Fill these rows with what others took, where they took something."""
        there = ~np.isnan(values["recomputed"])
        for name, taken in values.items():
            self.values[name][rows[there]] = taken[there]

    @torch.no_grad()
    def take(self, rows: IntArray, ids: torch.Tensor, logprobs: torch.Tensor, teacher: Lazy | None) -> None:
        """Fill these rows of the table.

        Args:
            ids: `[c]` the rows' tokens.
            logprobs: `[c, V]` log π at them.
            teacher: gives `[c, W]` log T at them; None where nobody gives distributions.
        """
        self.values["recomputed"][rows] = logprobs.gather(1, ids[:, None])[:, 0].double().cpu().numpy()
        self.values["entropy"][rows] = entropy(logprobs).double().cpu().numpy()
        if self._measured and teacher is not None:
            ours, theirs = common_vocabulary(logprobs, teacher().to(logprobs.device))
            for name, measure in self._measured.items():
                self.values[name][rows] = measure(ours, theirs).double().cpu().numpy()


def trainable(trajectories: Sequence[Trajectory], authors: Collection[Author] = STUDENT) -> list[Trajectory]:
    """Trajectories that may carry loss: those with tokens of the authors whose environment did not fail."""
    return [t for t in trajectories if t.stop_reason != StopReason.ENV_ERROR and t.written(authors) > 0]


def score(
    student: CausalLM,
    teacher: TeacherScorer | Panel | None,
    trajectories: Sequence[Trajectory],
    budget: int,
    old: str = "trainer",
    measures: Mapping[str, Measure] | None = None,
    reference: TeacherScorer | None = None,
    authors: Collection[Author] = STUDENT,
    later: bool = False,
) -> Scored:
    """Score a batch and put the teacher's and the reference's scores beside each trajectory, under their names.

    Args:
        student: the policy being trained, at the weights that sampled.
        teacher: None for methods without one. Of a panel each trajectory is scored by the teacher it is assigned to: the column
            `teacher` holds what that one says, and a column `teacher:<name>` each one's own share, NaN elsewhere.
        trajectories: `trainable` ones.
        budget: tokens that one pass computes.
        old: `trainer` recomputes the student's log-probs here; `sampler` takes the stored ones.
        measures: what the method reads beside `rkl`, computed wherever the teacher gives distributions.
        reference: scores the tokens as the student saw them, without the teacher's prompt; None for methods without one.
        authors: whose tokens carry loss. What is put beside a trajectory is of the student's tokens only.
        later: the student's own pass is made only when a column is read that needs it. That has to happen, or somebody else who
            has the student's logits has to fill the columns, before its weights change.
    """
    columns, sequences = _columns(trajectories, authors)
    plain = [ScoreRequest(s.ids.tolist(), s.targets.tolist()) for s in sequences]
    panel = Panel.of(teacher) if teacher is not None and not isinstance(teacher, Panel) else teacher
    owners = [panel.assign(t) for t in trajectories] if panel else []
    answers = panel.score([owners[s.trajectory] for s in sequences], [s.teacher for s in sequences], plain) if panel else None
    references = reference.score(plain) if reference else None
    n = len(columns["trajectory"])
    exact = panel is not None and "distribution" in panel.capabilities
    measured = {"rkl": reverse_kl, **(measures or {})} if exact else {}
    columns["sampler"] = columns.pop("logprobs_t1")
    if old == "sampler":
        columns["logprob"] = columns["sampler"]

    def own_pass(out: StudentColumns) -> None:
        _student_pass(student, sequences, answers if exact else None, budget, out)

    own = StudentColumns(n, measured, own_pass, also=() if old == "sampler" else ("logprob",))
    if panel and answers is not None:
        columns["teacher"] = _spread(n, sequences, [answer.logprobs for answer in answers])
        _attach(
            trajectories, columns, columns["teacher"], [panel.seats[owner].scorer.name for owner in owners], answers, sequences
        )
        for owner in panel.seats if len(panel.seats) > 1 else ():
            mine = np.array([each == owner for each in owners])[columns["trajectory"]]
            columns[f"teacher:{owner}"] = np.where(mine, columns["teacher"], np.nan)
    if reference is not None and references is not None:
        columns["reference"] = _spread(n, sequences, [answer.logprobs for answer in references])
        _attach(trajectories, columns, columns["reference"], [reference.name] * len(trajectories), references, sequences)
    table = TokenTable(columns, own)
    if not later:
        table.settle()
    return Scored(table, sequences, answers, references, own)


def _spread(n: int, sequences: Sequence[Segment], values: Sequence[torch.Tensor]) -> FloatArray:
    """`[n]` a value a target of each sequence at its row of the table, NaN elsewhere."""
    out = np.full(n, np.nan)
    for sequence, each in zip(sequences, values, strict=True):
        out[sequence.rows] = each.double().cpu().numpy()
    return out


def _columns(trajectories: Sequence[Trajectory], authors: Collection[Author]) -> tuple[dict[str, Any], list[Segment]]:
    """The table's stored columns, and every segment that holds tokens of the authors."""
    parts: dict[str, list[Any]] = {}
    sequences: list[Segment] = []
    offset = 0
    for index, trajectory in enumerate(trajectories):
        stream = trajectory.stream(authors)
        n = len(stream.ids)
        for name, values in token_rows(index, trajectory, stream).items():
            parts.setdefault(name, []).append(values)
        for segment in np.unique(stream.segment):
            where = np.flatnonzero(stream.segment == segment)
            targets = np.flatnonzero(stream.is_action[where])
            if len(targets):
                ids = stream.ids[where]
                first = trajectory.turns[int(stream.turn[where[0]])]
                own = _teacher_view(ids, targets, len(first.prompt_ids), first.teacher_prompt_ids)
                sequences.append(Segment(index, ids, targets, offset + where[targets], own))
        offset += n
    return {name: np.concatenate(values) for name, values in parts.items()}, sequences


def sequences_of(trajectories: Sequence[Trajectory], authors: Collection[Author] = STUDENT) -> list[Segment]:
    """Every segment that holds tokens of the authors, in the order of the trajectories: what scorers are asked about."""
    return _columns(trajectories, authors)[1]


def _teacher_view(ids: IntArray, targets: IntArray, n_prompt: int, prompt: list[int] | None) -> ScoreRequest:
    """The same tokens behind the teacher's own prompt, where it has one; the targets move with them."""
    if prompt is None:
        return ScoreRequest(ids.tolist(), targets.tolist())
    shift = len(prompt) - n_prompt
    return ScoreRequest([*prompt, *ids[n_prompt:].tolist()], (targets + shift).tolist())


@torch.no_grad()
def _student_pass(
    student: CausalLM, sequences: Sequence[Segment], answers: Sequence[TeacherScores] | None, budget: int, out: StudentColumns
) -> None:
    """Fill the student's columns on all targets."""
    student.model.train(False)
    size = chunk_rows(student.head)
    inputs = [s.ids.tolist() for s in sequences]
    for batch in budget_batches(inputs, budget, student.packed):
        members = [sequences[i] for i in batch]
        states = states_at(student, [inputs[i] for i in batch], [s.targets - 1 for s in members])
        for i, sequence, own in zip(batch, members, torch.split(states, [len(s.targets) for s in members]), strict=True):
            distribution = answers[i].distribution if answers is not None else None
            for start in range(0, len(sequence.targets), size):
                part = slice(start, start + size)
                ids = torch.as_tensor(sequence.ids[sequence.targets[part]], device=states.device)
                logprobs = torch.log_softmax(student.logits(own[part]), dim=-1)
                teacher = partial(distribution.logprobs, part) if distribution is not None else None
                out.take(sequence.rows[part], ids, logprobs, teacher)


def _attach(
    trajectories: Sequence[Trajectory],
    columns: Mapping[str, Any],
    logprobs: FloatArray,
    names: Sequence[str],
    answers: Sequence[TeacherScores],
    sequences: Sequence[Segment],
) -> None:
    """Put `logprobs` `[n]` and entropies, where they were given, beside each trajectory under its scorer's name."""
    entropies = [torch.full_like(a.logprobs, torch.nan) if a.entropy is None else a.entropy for a in answers]
    entropy = _spread(len(logprobs), sequences, entropies)
    actions = np.flatnonzero(columns["own"])
    starts = np.searchsorted(columns["trajectory"][actions], np.arange(1, len(trajectories)))
    for trajectory, name, rows in zip(trajectories, names, np.split(actions, starts), strict=True):
        if len(rows) != trajectory.n_action_tokens:
            continue  # only somebody else's tokens were scored
        has_entropy = bool(np.isfinite(entropy[rows]).all())
        trajectory.scores[name] = Scores(logprobs[rows], entropy[rows] if has_entropy else None)
