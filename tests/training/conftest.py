"""Batches of real episodes that a tiny student played: several segments, replayed turns, and a lost episode."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agentdistill.chat import Chat
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.pool import EnvPool
from agentdistill.rollout import Limits, Rollout, Task
from agentdistill.trajectory import Trajectory

TASKS = [Task(5, 1, 0), Task(5, 2, 0, prefix=("99", "98")), Task(6, 3, 1), Task(6, 4, 1, max_turns=1), Task(7, 5, 2)]


@pytest.fixture(scope="module", autouse=True)
def _reports_are_not_the_matter(undrawn: None) -> None:
    """No test of training looks at a picture."""


@pytest.fixture(scope="session")
def play(make_lm: Callable[[int], CausalLM]) -> Callable[..., list[Trajectory]]:
    """Roll out `TASKS` with the student of a seed; task 7's environment breaks at its second step."""

    def run(seed: int = 0, *, privileged: bool = False) -> list[Trajectory]:
        lm = make_lm(seed)
        pool = EnvPool("lab/Guess-v0", {"fault": "raise", "fault_at": 2, "fault_seeds": [7]})
        limits = Limits(max_turns=9, max_context=72, overflow="window", window=1)
        rollout = Rollout(pool, TransformersSampler(lm), Chat(lm.tokenizer), limits, privileged=privileged)
        return rollout.run(TASKS, SamplingParams(max_tokens=9), "b")

    return run
