"""From trajectories to the scored token table: one student pass and one teacher pass a segment, sliced afterwards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from agentdistill.policies.base import ScoreRequest, TeacherScorer, TeacherScores
from agentdistill.policies.model import CausalLM, chunk_rows, pad_right, token_budget_batches
from agentdistill.signals import TokenTable
from agentdistill.signals.divergence import reverse_kl
from agentdistill.signals.parts import common_vocabulary
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

    The answers are None where nobody gives them.
    """

    table: TokenTable
    sequences: list[Segment]
    answers: list[TeacherScores] | None
    references: list[TeacherScores] | None = None

    @property
    def kl(self) -> FloatArray:
        """`[n]` reverse KL in nats: exact where the teacher gives distributions, the sampled log-ratio otherwise."""
        values: FloatArray = self.table["logprob"] - self.table["teacher"]
        if "rkl" in self.table:
            values = self.table["rkl"]
        return values


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
) -> Scored:
    """Score a batch and put the teacher's and the reference's scores beside each trajectory, under their names.

    Args:
        student: the policy being trained, at the weights that sampled.
        teacher: None for methods without one. Of a panel each trajectory is scored by the teacher it is assigned to: the column
            `teacher` holds what that one says, and a column `teacher:<name>` each one's own share, NaN elsewhere.
        trajectories: `trainable` ones.
        budget: rows × longest in one pass, in tokens.
        old: `trainer` recomputes the student's log-probs here; `sampler` takes the stored ones.
        measures: what the method reads beside `rkl`, computed wherever the teacher gives distributions.
        reference: scores the tokens as the student saw them, without the teacher's prompt; None for methods without one.
        authors: whose tokens carry loss. What is put beside a trajectory is of the student's tokens only.
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
    names = ("logprob", "entropy", *measured)
    fresh: dict[str, FloatArray] = {name: np.full(n, np.nan) for name in names}
    _student_pass(student, sequences, answers if exact else None, budget, measured, fresh)
    columns["sampler"] = columns.pop("logprobs_t1")
    columns["logprob"] = columns["sampler"] if old == "sampler" else fresh["logprob"]
    columns["entropy"] = fresh["entropy"]
    columns["recomputed"] = fresh["logprob"]
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
    columns |= {name: fresh[name] for name in measured}
    return Scored(TokenTable(columns), sequences, answers, references)


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
    student: CausalLM,
    sequences: Sequence[Segment],
    answers: Sequence[TeacherScores] | None,
    budget: int,
    measured: Mapping[str, Measure],
    out: dict[str, FloatArray],
) -> None:
    """Fill `logprob`, `entropy` and, against the teacher's distributions, what is measured."""
    student.model.train(False)
    size = chunk_rows(student.head)
    for batch in token_budget_batches([len(s.ids) for s in sequences], budget):
        hidden = student.hidden(pad_right([sequences[i].ids.tolist() for i in batch], student.device))
        for row, i in enumerate(batch):
            sequence = sequences[i]
            for start in range(0, len(sequence.targets), size):
                part = slice(start, start + size)
                targets = torch.as_tensor(sequence.targets[part], device=hidden.device)
                ids = torch.as_tensor(sequence.ids[sequence.targets[part]], device=hidden.device)
                logprobs = torch.log_softmax(student.logits(hidden[row, targets - 1]), dim=-1)
                rows = sequence.rows[part]
                out["logprob"][rows] = logprobs.gather(1, ids[:, None])[:, 0].double().cpu().numpy()
                out["entropy"][rows] = torch.special.entr(logprobs.exp()).sum(-1).double().cpu().numpy()
                distribution = answers[i].distribution if answers is not None else None
                if distribution is not None:
                    ours, theirs = common_vocabulary(logprobs, distribution.logprobs(part).to(logprobs.device))
                    for name, measure in measured.items():
                        out[name][rows] = measure(ours, theirs).double().cpu().numpy()


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
