"""A model from scratch has room for the plan that its teacher is shown before a full context."""

from __future__ import annotations

from typing import Any

import pytest

from agentdistill import api
from agentdistill.training.session import tiny_context

RUN: dict[str, Any] = {
    "env": {"id": "lab/Guess-v0", "max_context": 64},
    "student": {"model": "tiny:32x1", "sft": {"steps": 1}},
    "teacher": {"model": "initial"},
}


@pytest.mark.parametrize(("privileged", "tokens"), [(False, 64), (True, 128)])
def test_a_model_from_scratch_takes_the_plan_as_well_as_what_is_played(privileged: bool, tokens: int) -> None:
    assert tiny_context(api.experiment(RUN, {"teacher.privileged": privileged})) == tokens
