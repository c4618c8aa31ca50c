"""Stored trajectories as a token table, held to the table that scoring makes of the same episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agentdistill.errors import UserError
from agentdistill.policies.load import load_model
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.store import Store
from agentdistill.store_table import stored_table
from agentdistill.training.score import score


def test_what_is_stored_is_what_scoring_found(guess_run: Path) -> None:
    episodes = Store(guess_run / "store").read("iter-000001")
    (scorer,) = {name for each in episodes for name in each.scores}
    stored = stored_table(episodes, {"teacher": scorer})
    student, teacher = (load_model(str(guess_run / role)) for role in ("student", "teacher"))
    fresh = score(student, TransformersScorer(teacher), episodes, 4096).table
    for name in ("trajectory", "turn", "step", "is_action", "own", "reward", "group"):
        assert np.array_equal(stored[name], fresh[name]), name
    for name in ("logprob", "teacher"):
        assert np.allclose(stored[name], fresh[name], atol=1e-5, equal_nan=True), name


def test_no_trajectory_is_an_empty_table_and_a_stranger_an_error(guess_run: Path) -> None:
    empty = stored_table([], {"teacher": "anybody"})
    assert len(empty) == 0
    assert empty.n_trajectories == 0
    with pytest.raises(UserError, match="has no scores by 'nobody'"):
        stored_table(Store(guess_run / "store").read("iter-000001"), {"teacher": "nobody"})
