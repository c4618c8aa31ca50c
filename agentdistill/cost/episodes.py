"""Made-up episodes of given lengths, for measuring what is done with real ones."""

from __future__ import annotations

import random
from collections.abc import Sequence

from agentdistill.cost.work import Lengths
from agentdistill.policies.base import ScoreRequest, TeacherScorer, TeacherScores
from agentdistill.policies.scorer import HiddenDistribution
from agentdistill.trajectory import StopReason, Trajectory, Turn

_IDS = 50  # that they are written with, any vocabulary has as many


def made_up(n: int, lengths: Lengths, contexts: int = 1) -> list[Trajectory]:
    """Episodes of so many turns and tokens, as near as whole numbers come.

    Args:
        contexts: sequences that each consists of.
    """
    turns = max(1, round(lengths.turns))
    said = max(1, round(lengths.written / turns))
    shown = max(1, round((lengths.read - lengths.written) / turns))
    fresh = max(1, turns // contexts)
    rng = random.Random(0)

    def turn(i: int, k: int) -> Turn:
        ids = [rng.randrange(_IDS) for _ in range(shown)]
        ids[0] = (i + k) % _IDS  # or they begin alike
        values = [-rng.random() for _ in range(said)]
        return Turn(
            ids, [rng.randrange(_IDS) for _ in range(said)], "said", "shown", values, values, fresh=k > 0 and k % fresh == 0,
            reward=rng.random(),
        )  # fmt: skip

    return [
        Trajectory(f"plan/{i:04d}", "agentdistill/Plan-v0", i, f"task-{i}", [{"role": "user", "content": "shown"}],
                   [turn(i, k) for k in range(turns)], StopReason.TERMINATED, group=i // 2, success=rng.random() < 0.5)
        for i in range(n)
    ]  # fmt: skip


class Faded:
    """A scorer's answers made less sure of themselves, so that a student that scores itself has something to learn.

    Args:
        scorer: one that gives distributions.
    """

    def __init__(self, scorer: TeacherScorer) -> None:
        self.name, self.capabilities, self._scorer = "faded", scorer.capabilities, scorer

    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        """See `TeacherScorer`."""
        out = []
        for each in self._scorer.score(requests):
            assert isinstance(each.distribution, HiddenDistribution)
            faded = HiddenDistribution(0.5 * each.distribution.hidden, each.distribution.head)
            out.append(TeacherScores(0.9 * each.logprobs, each.entropy, faded))
        return out
