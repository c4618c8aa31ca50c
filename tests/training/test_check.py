"""What is refused before anything is trained: tasks that are not what a report would say they are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agentdistill.config import Experiment, parse_experiment
from agentdistill.environment import TextEnv
from agentdistill.errors import UserError
from agentdistill.training.check import first_seeds, require_held_out


class Repeats(TextEnv):
    """Three tasks, of which the last is the first again."""

    def task_seeds(self, split: str) -> Sequence[int]:
        return [5, 6, 5]


def experiment(split: str, reported: str) -> Experiment:
    about = {"env": {"id": "lab/X-v0", "split": split}, "student": {"model": "tiny:32x2"}, "eval": {"split": reported}}
    return parse_experiment(about)


def test_a_task_listed_twice_is_not_two_tasks() -> None:
    assert first_seeds(Repeats(), "lab/X-v0", "test", 2) == [5, 6]
    with pytest.raises(UserError, match="split 'test' of 'lab/X-v0' lists task seed 5 more than once"):
        first_seeds(Repeats(), "lab/X-v0", "test", 3)


def test_reported_tasks_are_held_out_from_those_trained_on() -> None:
    chosen = {"train": [1, 2, 3], "test": [4, 5]}
    require_held_out(experiment("train", "test"), chosen)
    with pytest.raises(UserError, match="splits 'train' and 'test' of 'lab/X-v0' share 1 tasks \\(as seed 3\\)"):
        require_held_out(experiment("train", "test"), {**chosen, "test": [3, 4]})


def test_one_split_may_be_named_for_both_by_intent() -> None:
    require_held_out(experiment("train", "train"), {"train": [1, 2, 3]})
