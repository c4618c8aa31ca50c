"""A rank's share of an optimizer step: some segments, their rows of the table, and what their scorers said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from agentdistill.policies.base import ScoreRequest, TeacherScores
from agentdistill.signals import Method, Streams, TokenTable
from agentdistill.signals.divergence import reverse_kl
from agentdistill.training.score import Scored, Segment, StudentColumns
from agentdistill.trajectory import FloatArray, IntArray

READ = ("teacher", "reward")
"""Columns of the table that a loss may read."""


@dataclass(frozen=True, slots=True)
class Share:
    """What another process needs to know of a batch, by the rows of its own segments only.

    Attributes:
        rows: `[m]` those rows in the whole table.
        streams, coef: `[m]`; segments name rows of these.
        taken: what the student's columns measure beside its log-probs and entropies; None where they are not to be filled.
    """

    rows: IntArray
    segments: list[Segment]
    columns: dict[str, FloatArray]
    streams: Streams
    coef: FloatArray
    answers: list[TeacherScores] | None
    references: list[TeacherScores] | None
    taken: tuple[str, ...] | None
    where: str

    def scored(self, method: Method) -> Scored:
        """The batch as `update.accumulate` takes it."""
        n, own = len(self.rows), None
        if self.taken is not None:
            known = {"rkl": reverse_kl, **method.measures}
            own = StudentColumns(n, {name: known[name] for name in self.taken}, _nobody)
        zeros = np.zeros(n, dtype=np.int64)
        required = {"trajectory": zeros, "turn": zeros, "step": zeros, "is_action": np.ones(n, dtype=bool)}
        return Scored(TokenTable({**required, **self.columns}, own), self.segments, self.answers, self.references, own)


def cut(method: Method, scored: Scored, streams: Streams, coef: FloatArray, segments: Sequence[int], where: str) -> Share:
    """The share that these segments of a batch are."""
    chosen = [scored.sequences[i] for i in segments]
    rows = np.concatenate([np.empty(0, dtype=np.int64), *(s.rows for s in chosen)])
    ends = np.cumsum([len(s.rows) for s in chosen])
    moved = [
        replace(s, rows=np.arange(end - len(s.rows), end), teacher=ScoreRequest([], []))
        for s, end in zip(chosen, ends, strict=True)
    ]
    table = scored.table
    taken = scored.student.measured if scored.student is not None and table.pending else None
    parts: dict[str, Any] = {each.name: getattr(streams, each.name) for each in fields(streams)}
    own: dict[str, Any] = {name: None if value is None else value[rows] for name, value in parts.items()}
    return Share(
        rows=rows,
        segments=moved,
        columns={name: table[name][rows] for name in READ if name in table and method.exact},
        streams=Streams(**own),
        coef=coef[rows],
        answers=_distributions(scored.answers, segments) if method.exact or taken else None,
        references=_distributions(scored.references, segments) if method.exact else None,
        taken=taken,
        where=where,
    )


def _distributions(answers: Sequence[TeacherScores] | None, segments: Sequence[int]) -> list[TeacherScores] | None:
    """A scorer's distributions at some segments, which are all that a loss asks of it."""
    if answers is None:
        return None
    return [TeacherScores(torch.empty(0), None, answers[i].distribution) for i in segments]


def _nobody(columns: StudentColumns) -> None:
    raise AssertionError("the student's columns are read by the controller alone")
