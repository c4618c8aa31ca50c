"""Asking a scorer about some neighbours of a stored batch: the same questions that training asks, the answers in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from agentdistill.errors import UserError
from agentdistill.policies import model as model_module
from agentdistill.policies.base import Distribution, ScoreRequest, TeacherScorer, TeacherScores
from agentdistill.store import Store
from agentdistill.store_scores import sizes
from agentdistill.training.score import Segment, sequences_of, trainable
from agentdistill.trajectory import FloatArray, Scores, Trajectory


@dataclass(frozen=True, slots=True)
class Portion:
    """`n` trajectories from row `start` of a batch on, whose file has the SHA-256 `sha256`."""

    batch: str
    sha256: str
    start: int
    n: int


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a portion.

    Attributes:
        episodes, left_out: scored, and not trained on.
        tokens: of the student.
        read: tokens that the scorer read for it, its own prompts included.
        bytes: on disk, by column.
    """

    portion: Portion
    episodes: int
    left_out: int
    tokens: int
    read: int
    bytes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Columns:
    """What is kept of a scorer's answers.

    Attributes:
        top_k: its likeliest ids to keep a token; 0: none.
        entropy: whether entropies are kept.
        as_student: whether it is shown the student's prompts even where a trajectory has others for its teacher.
    """

    top_k: int = 0
    entropy: bool = False
    as_student: bool = False


class PortionScorer:
    """Scores portions of a store under a name, each of which is on disk when it is returned."""

    def __init__(self, store: Store, scorer: TeacherScorer, name: str, columns: Columns) -> None:
        self._store, self._scorer, self._columns, self._files = store, scorer, columns, store.scores(name)

    def score(self, portion: Portion, members: Sequence[Trajectory] | None = None) -> Done:
        """Score a portion.

        Args:
            members: its trajectories, where they have been read.

        Raises:
            UserError: when a log-prob is not finite, the store cannot be read, or the disk refuses.
        """
        if members is None:
            members = self._store.pick(portion.batch, range(portion.start, portion.start + portion.n), ())
        rows, wanted = trainable(members), self._columns
        own = sequences_of(rows) if rows else []
        answered = ask(self._scorer, rows, own, as_student=wanted.as_student, top_k=wanted.top_k)
        scores = {id(t): s if wanted.entropy else _without_entropy(s) for t, s in zip(rows, answered, strict=True)}
        row = [(t.id, scores.get(id(t))) for t in members]
        part = self._files.write(
            portion.batch, portion.sha256, portion.start, row, k=wanted.top_k, entropy=wanted.entropy
        )  # fmt: skip
        read = sum(len(_request(s, wanted.as_student).ids) for s in own)
        tokens = sum(t.n_action_tokens for t in rows)
        return Done(portion, len(rows), len(members) - len(rows), tokens, read, sizes([part]))


def ask(
    scorer: TeacherScorer, trajectories: Sequence[Trajectory], sequences: Sequence[Segment], *, as_student: bool = False,
    top_k: int = 0,
) -> list[Scores]:  # fmt: skip
    """What a scorer says of the student's tokens: an answer a trajectory, entropies where it gives them.

    Args:
        trajectories: `trainable` ones.
        sequences: theirs, of `sequences_of`.
        as_student: show it the student's prompts even where a trajectory has others for its teacher.
        top_k: its likeliest ids to keep a token; fewer where its vocabulary is smaller.

    Raises:
        UserError: naming the trajectory with a log-prob that is not finite.
    """
    answers = scorer.score([_request(sequence, as_student) for sequence in sequences])
    owned: list[list[TeacherScores]] = [[] for _ in trajectories]
    for sequence, answer in zip(sequences, answers, strict=True):
        owned[sequence.trajectory].append(answer)
    out = [_joined(each, top_k) for each in owned]
    for trajectory, scores in zip(trajectories, out, strict=True):
        if not np.isfinite(scores.logprobs).all():
            raise UserError(f"scorer '{scorer.name}' gave a log-prob that is not finite for trajectory '{trajectory.id}'")
    return out


def _request(sequence: Segment, as_student: bool) -> ScoreRequest:
    return ScoreRequest(sequence.ids.tolist(), sequence.targets.tolist()) if as_student else sequence.teacher


def _joined(answers: Sequence[TeacherScores], top_k: int) -> Scores:
    """A trajectory's answers, a segment each, as one: segments come in the order of its tokens."""
    entropies = [answer.entropy for answer in answers]
    entropy = None if any(each is None for each in entropies) else _numbers([e for e in entropies if e is not None])
    scores = Scores(_numbers([answer.logprobs for answer in answers]), entropy)
    if top_k:
        pairs = [
            _top(answer.distribution, len(answer.logprobs), top_k) for answer in answers if answer.distribution is not None
        ]
        scores.topk_logprobs, scores.topk_ids = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return scores


@torch.no_grad()
def _top(distribution: Distribution, n: int, k: int) -> tuple[FloatArray, np.ndarray]:
    """`[n, k]` log-probs, falling, and ids of the likeliest tokens; no more than a chunk of distributions at one time."""
    width = distribution.logprobs(slice(0, 1)).shape[-1]
    size = max(1, model_module.CHUNK_ELEMENTS // width)
    tops = [distribution.logprobs(slice(start, start + size)).topk(min(k, width), -1) for start in range(0, n, size)]
    values, ids = torch.cat([top.values for top in tops]), torch.cat([top.indices for top in tops])
    return values.double().cpu().numpy(), ids.cpu().numpy()


def _numbers(parts: Sequence[torch.Tensor]) -> FloatArray:
    joined: FloatArray = torch.cat(list(parts)).double().cpu().numpy()
    return joined


def _without_entropy(scores: Scores) -> Scores:
    return Scores(scores.logprobs, None, scores.topk_ids, scores.topk_logprobs)
