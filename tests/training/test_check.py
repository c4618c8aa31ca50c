"""What is refused before anything is trained: tasks that are not what a report would say they are."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agentdistill.config import Experiment, parse_experiment
from agentdistill.environment import TextEnv
from agentdistill.errors import UserError
from agentdistill.training.check import first_seeds, look_up, require_held_out, without_effect


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


def test_wanted_tasks_are_looked_up_once_a_split_and_have_to_be_held_out() -> None:
    asked: list[str] = []

    class Counts(TextEnv):
        overlap = 0

        def task_seeds(self, split: str) -> Sequence[int]:
            asked.append(split)
            return {"train": [1, 2, 3], "test": [4 - self.overlap, 5, 6]}[split]

    env, wanted = Counts(), [("train", None), ("test", 1), ("test", 2), ("train", 2)]
    assert look_up(env, experiment("train", "test"), wanted) == ({"train": [1, 2, 3], "test": [4, 5]}, {"train": 3, "test": 3})
    assert asked == ["train", "test"]
    with pytest.raises(UserError, match=r"split 'test' of 'lab/X-v0' has 3 tasks, fewer than the 4 asked for"):
        look_up(env, experiment("train", "test"), [*wanted, ("test", 4)])
    env.overlap = 1
    with pytest.raises(UserError, match=r"splits 'train' and 'test' of 'lab/X-v0' share 1 tasks \(as seed 3\)"):
        look_up(env, experiment("train", "test"), wanted)


def test_bounds_of_workers_without_workers_are_named() -> None:
    def said(**env: float) -> str | None:
        return without_effect(parse_experiment({"env": {"id": "lab/X-v0", **env}, "student": {"model": "a/b"}}))

    assert said() is said(timeout=300) is said(timeout=5, workers=2) is None
    assert said(timeout=5) == (
        "env.timeout can bound worker processes only, and env.workers is 0, so nothing is bounded; set env.workers to 1 or more"
    )
    assert str(said(timeout=5, memory=100)).startswith("env.timeout and env.memory can bound worker")


def test_windowing_a_full_context_is_nothing_to_a_view_that_has_none() -> None:
    def note(**env: object) -> str | None:
        return without_effect(parse_experiment({"env": {"id": "lab/X-v0", **env}, "student": {"model": "a/b"}}))

    assert note(view="window") is note(overflow="window", window=4) is None
    assert str(note(view="window", overflow="window")).startswith("env.overflow is for a view that extends one context")
    assert str(note(view={"kind": "window", "pairs": 3}, window=4)).startswith("env.window is for a view")
