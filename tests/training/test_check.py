"""What is refused before anything is trained: tasks that are not what a report would say they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agentdistill import curricula
from agentdistill.config import Experiment, parse_experiment
from agentdistill.environment import TextEnv
from agentdistill.errors import UserError
from agentdistill.policies.base import ScoreRequest, TeacherScores
from agentdistill.signals import Method
from agentdistill.training.check import check, first_seeds, look_up, require_given, require_held_out, without_effect


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


def test_a_factor_of_a_term_that_is_not_there_is_named() -> None:
    def note(method: object) -> str | None:
        return without_effect(full(method=method))

    assert note("opd") is note({"preset": "sod", "rl_coef": 0.5}) is note({"preset": "opd-exact", "kd_coef": 2}) is None
    assert note({"preset": "opd", "rl_coef": 0.5}) == (
        "method.rl_coef multiplies the reward term, and there is none; set method.rl, or drop rl_coef"
    )
    falling = {"kind": "linear", "start": 1, "by": -0.1}
    assert str(note({"preset": "grpo", "kd_coef": falling})).startswith("method.kd_coef multiplies the distillation term")


def full(**sections: Any) -> Experiment:
    about = {"env": "lab/X-v0", "student": {"model": "lab/student"}, "teacher": {"model": "lab/teacher"}, **sections}
    return parse_experiment(about)


def checked(config: Experiment) -> None:
    check(config, Method.load(config.method), curricula.load(config.schedule))


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        (
            {"method": "exopd"},
            "method 'exopd' needs a reference's scores, and the experiment has no reference section (signal 'g-opd' asks for a "
            "reference model's log-probs of the sampled tokens)",
        ),
        ({"method": "adpa"}, "(divergence 'adpa' asks for a reference model's full distributions)"),
        (
            {"method": {"signal": {"kind": "g-opd", "lam": 1.0}}},
            "needs a reference's scores, and the experiment has no reference section",
        ),
        (
            {"method": {"preset": "opd", "selection": "tip"}, "teacher": None},
            "needs a teacher's scores, and the experiment has no teacher section (selection 'tip' asks for the teacher's full",
        ),
        (
            {"method": "exopd", "reference": {"model": "ema"}},
            "reference.model cannot be 'ema', since a reference does not change",
        ),
        ({"method": "exopd", "reference": {"model": "tiny:32x1"}}, "reference.model 'tiny:32x1' would be random weights"),
        ({"method": "exopd", "reference": {"model": "./nowhere"}}, "there is no model folder './nowhere'"),
        ({"student": {"model": "live"}}, "student.model cannot be 'live'"),
        (
            {"teacher": {"model": "intial", "privileged": True}},
            "teacher.model 'intial' is no folder here (a model of the hub is written 'intial@main'); did you mean 'initial'?",
        ),
        ({"teachers": {"a": {"model": "x/y"}, "b": {"model": "Live"}}, "teacher": None}, "did you mean 'live'?"),
        ({"method": "exopd", "reference": {"model": "inital"}}, "reference.model 'inital' is no folder here"),
        (
            {"method": {"preset": "opd-exact", "selection": "tip"}, "teacher": None},
            "(selection 'tip' and divergence 'rkl' ask for the teacher's full distributions)",
        ),
        (
            {"method": "tcod-f2b", "schedule": "none"},
            "method 'tcod-f2b' is distillation under schedule 'tcod-f2b', and the experiment's schedule is 'none'",
        ),
    ],
)
def test_what_one_section_asks_of_another_is_refused_by_both_names(sections: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        checked(full(**sections))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"view": "windw"}, "unknown view 'windw'; did you mean 'window'?"),
        ({"view": {"kind": "window", "pair": 2}}, "view 'window' has no parameter 'pair'; did you mean 'pairs'?"),
        ({"demonstrations": "nowhere.jsonl"}, "the recorded demonstrations 'nowhere.jsonl' cannot be read"),
    ],
)
def test_a_view_and_recorded_demonstrations_are_looked_at_before_anything_runs(env: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        checked(full(env={"id": "lab/X-v0", **env}))
    assert says in str(error.value)


@pytest.mark.parametrize("method", ["exopd", "gopd", "adpa"])
def test_a_reference_makes_such_a_method_whole(method: str) -> None:
    checked(full(method=method, reference={"model": "initial"}))


@pytest.mark.parametrize("model", ["gpt2", "intial@main", "lab/intial", "tiny-gpt2"])
def test_a_name_of_the_hub_that_is_like_none_of_the_students_own_passes(model: str) -> None:
    checked(full(teacher={"model": model}))


def test_a_decay_belongs_to_the_moving_average() -> None:
    checked(full(teacher={"model": "ema", "decay": 0.9, "privileged": True}))
    with pytest.raises(UserError, match=r"decay is of the moving average, model: ema, and teacher.model is 'initial'"):
        full(teacher={"model": "initial", "decay": 0.9})


@pytest.mark.parametrize("preset", ["tcod-f2b", "tcod-b2f"])
def test_tcods_presets_bring_their_schedule_unless_its_settings_are_given(preset: str) -> None:
    assert full(method=preset).schedule == preset
    assert full(method={"preset": preset, "clip_high": 0.3}).schedule == preset
    slow = full(method=preset, schedule={"kind": preset, "every": 6})
    checked(slow)
    assert slow.schedule == {"kind": preset, "every": 6}
    assert full(method="opd").schedule == "none"


class Sparse:
    """A scorer of another engine: sampled log-probs and a top-k."""

    name, capabilities = "far", frozenset({"teacher", "topk"})

    def score(self, requests: Sequence[ScoreRequest]) -> list[TeacherScores]:
        return []


@pytest.mark.parametrize(
    ("method", "asks"),
    [("gkd", "divergence 'jsd'"), ("vopd", "baseline 'vopd'"), ({"preset": "opd", "selection": "tip"}, "selection 'tip'")],
)
def test_a_teacher_that_does_not_give_distributions_is_refused_by_name(method: Any, asks: str) -> None:
    require_given(Method.load("opd"), "teacher", Sparse())
    require_given(Method.load("exopd"), "reference", Sparse())
    with pytest.raises(UserError) as error:
        require_given(Method.load(method), "teacher", Sparse())
    assert str(error.value) == (
        f"{asks} needs the teacher's full distributions, and teacher 'far' gives the teacher's log-probs of the sampled tokens "
        "and the teacher's most likely ids with their log-probs only"
    )


def test_a_reference_that_does_not_give_distributions_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="divergence 'adpa' needs a reference model's full distributions, and reference 'far'"):
        require_given(Method.load("adpa"), "reference", Sparse())
