"""A teacher's stored scores in the teacher's place (Lightning OPD, arXiv 2604.13010)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from agentdistill.errors import UserError
from agentdistill.policies.base import ScoreRequest, TeacherScores
from agentdistill.policies.top import TopDistribution
from agentdistill.store_scores import Identity
from agentdistill.training.score import sequences_of
from agentdistill.trajectory import Scores, Trajectory


class StoredScorer:
    """A `TeacherScorer` that knows the answers about the trajectories it was given, and about no others.

    Args:
        name: of the scorer in the store.
        identity: who that was.
        top_k: how many of its likeliest ids are stored for every token.
        width: of the distributions that those are taken for: the student's.
    """

    def __init__(self, name: str, identity: Identity, top_k: int = 0, width: int = 0) -> None:
        self.name, self.identity, self.top_k, self.width = name, identity, top_k, width
        self.capabilities = frozenset({"teacher", "topk"} if top_k else {"teacher"})
        self._answers: dict[tuple[bytes, bytes], TeacherScores] = {}

    def hold(self, trajectories: Sequence[Trajectory]) -> None:
        """Know these from now on, and forget those before.

        Raises:
            UserError: when one has no scores, or not one for each of its student tokens.
        """
        self._answers = {}
        given = [trajectory.scores_by(self.name) for trajectory in trajectories]
        taken = [0] * len(trajectories)
        for sequence in sequences_of(trajectories):
            start = taken[sequence.trajectory]
            stop = taken[sequence.trajectory] = start + len(sequence.targets)
            answer = self._answer(given[sequence.trajectory], slice(start, stop))
            plain = ScoreRequest(sequence.ids.tolist(), sequence.targets.tolist())
            self._answers |= {_key(plain): answer, _key(sequence.teacher): answer}

    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        """The stored answers (see `TeacherScorer`).

        Raises:
            UserError: when something else is asked.
        """
        try:
            return [self._answers[_key(request)] for request in requests]
        except KeyError as error:
            raise UserError(
                f"the stored scores of '{self.name}' are of the store's own episodes, and another sequence was to be scored; "
                "drop rollouts.scorer, and let the teacher be loaded"
            ) from error

    def _answer(self, scores: Scores, part: slice) -> TeacherScores:
        answer = TeacherScores(torch.as_tensor(scores.logprobs[part]))
        if scores.entropy is not None:
            answer.entropy = torch.as_tensor(scores.entropy[part])
        if self.top_k and scores.topk_ids is not None and scores.topk_logprobs is not None:
            ids, values = torch.as_tensor(scores.topk_ids[part]), torch.as_tensor(scores.topk_logprobs[part])
            answer.distribution = TopDistribution(ids, values, self.width)
        return answer


def _key(request: ScoreRequest) -> tuple[bytes, bytes]:
    return np.asarray(request.ids, dtype=np.int64).tobytes(), np.asarray(request.targets, dtype=np.int64).tobytes()
