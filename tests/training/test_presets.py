"""Methods in the loop: each preset brings the student nearer to its teacher, and axes combine."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from agentdistill import environment
from agentdistill.errors import UserError
from agentdistill.policies.base import SamplingParams
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.signals import AXES, PRESETS, SIGNALS, Method, TokenTable
from agentdistill.signals.method import preset_schedule
from agentdistill.training.score import score
from agentdistill.trajectory import FloatArray, Trajectory
from tests.training.looped import Even, experiment, loop, near, play_even

SECTIONS: dict[str, dict[str, Any]] = {"dasd": {"mixed": {"most": 2}}}
"""What an experiment has beside its method, where a preset needs it."""
Models = tuple[CausalLM, CausalLM, CausalLM]

NOT_ABOUT_KL = {
    "grpo": "no teacher in it", "dr-grpo": "no teacher in it", "rloo": "no teacher in it",
    "rlad": "the teacher only bends how far the reward may move the student",
    "kdrl": "beside unit advantages its coefficient is 5e-3", "kdrl-masked": "as kdrl",
    "dckd": "it imitates the student's own right episodes, five times as strongly",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def even() -> Iterator[None]:
    environment.register("lab/Even-v0", Even)
    yield
    environment.unregister("lab/Even-v0")


@pytest.fixture(scope="module")
def models(make_lm: Callable[[int], CausalLM]) -> Models:
    """A student, and two models that mostly agree with it."""
    student = make_lm(0)
    return student, near(student, "teacher", 1, noise=0.5), near(student, "reference", 2, noise=0.1)


@pytest.fixture(scope="module")
def episodes(models: Models, even: None) -> list[Trajectory]:
    """What the untrained student said."""
    return play_even(models[0], range(100, 112), SamplingParams(max_tokens=3))


def divergence(student: CausalLM, teacher: CausalLM, episodes: list[Trajectory]) -> float:
    table = score(student, TransformersScorer(teacher), episodes, 4096).table
    return float(table["rkl"][table.is_action].mean())


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_few_iterations_of_a_preset_bring_the_student_nearer_to_its_teacher(
    preset: str, models: Models, episodes: list[Trajectory], tmp_path: Path
) -> None:
    student, teacher, reference = copy.deepcopy(models[0]), *models[1:]
    sizes = {"train.iterations": 1 if preset in NOT_ABOUT_KL else 7, "train.tasks": 6, "train.lr": 3e-3}
    config = experiment(
        method=preset,
        schedule=preset_schedule(preset) or "none",
        **sizes,
        **SECTIONS.get(preset, {}),
        **{"sampling.max_tokens": 3},
    )
    before = divergence(student, teacher, episodes)
    records = loop(tmp_path, student, config, teacher, reference)
    assert records[-1]["grad_norm"] > 0
    if preset not in NOT_ABOUT_KL:
        assert divergence(student, teacher, episodes) < 0.9 * before


RL: dict[str, Any] = {"rl": "grpo"}
TIP: dict[str, Any] = {"kind": "tip", "ratio": 0.3}
COMBINATIONS: list[dict[str, Any]] = [
    {"preset": "opd", "signal": {"gamma": 0.9}},
    {"preset": "opd", "signal": {"gamma": 1.0}, "baseline": "vopd", "aggregation": "seq-mean-token-mean"},
    {"preset": "opd", "selection": TIP},
    {"preset": "opd", "selection": {**TIP, "score": "q3"}, "step_weight": "sod"},
    {"preset": "opd", "gate": "sigmoid", "baseline": "vopd"},
    {"preset": "opd", "gate": {"kind": "gated", "unit": "token", "agree": 2.0, "conflict": 1.0}},
    {"preset": "opd", "ratio": "trrd"},
    {"preset": "opd", "ratio": {"kind": "trrd", "alpha": 1.0}, **RL},
    {"preset": "sod", "step_weight": {"reference": "median"}, "selection": TIP},
    {"preset": "sod", "step_weight": {"reference": "first-above-floor"}, "baseline": "vopd", "selection": TIP},
    {"preset": "sod", "rl": "rloo", "baseline": {"kind": "vopd", "top_k": 4}},
    {"preset": "sod", "rl": "dr-grpo", "aggregation": {"kind": "seq-mean-token-sum-norm", "norm": 9}},
    {"preset": "sod", "signal": "iw-opd"},
    {"preset": "sod", "step_weight": {"kind": "mask-after-error", "threshold": 0.4}, "baseline": "vopd"},
    {"preset": "sod-exact", "step_weight": {"kind": "decay-after-error", "threshold": 0.4}, "selection": TIP},
    {"preset": "sod", "signal": "lightning", "gate": "wrong"},
    {"preset": "lightning", "importance": {"kind": "truncated", "cap": 1.5}, "step_weight": "sod", **RL},
    {"preset": "sod", "signal": {"kind": "g-opd", "lam": 1.5}},
    {"preset": "sod-exact", "divergence": "skew-fkl", "selection": TIP},
    {"preset": "sod-exact", "divergence": "k3", "gate": "wrong"},
    {"preset": "sod-exact", "divergence": "adpa"},
    {"preset": "exopd", "baseline": "vopd"},
    {"preset": "exopd", "selection": TIP, "step_weight": "sod", **RL},
    {"preset": "exopd", "gate": "wrong-group", **RL},
    {"preset": "kdrl", "divergence": "rkl", "gate": "wrong-group"},
    {"preset": "kdrl", "divergence": "none", "signal": "opd", "baseline": "vopd"},
    {"preset": "kdrl", "step_weight": "sod", "kd_coef": {"kind": "linear", "start": 1, "by": -0.1}},
    {"preset": "rlad", "signal": "opd", "baseline": "vopd"},
    {"preset": "rlad", "divergence": "jsd"},
    {"preset": "opsd", "divergence": {"clip": 0.5}, "step_weight": "sod"},
    {"preset": "opsd", "divergence": {"divergence": "jsd"}, "selection": TIP, **RL},
    {"divergence": {"kind": "rkl", "support": "teacher", "k": 8, "tail": "bucket"}, "step_weight": "sod"},
    {"divergence": {"kind": "fkl", "temperature": 2.0}, "selection": {**TIP, "score": "entropy"}, **RL},
    {"divergence": {"kind": "bd-kd", "rule": "entropy-gap"}, "aggregation": "seq-mean-token-mean"},
    {"divergence": "abs", "selection": TIP, "gate": "sigmoid"},
    {"divergence": "opsd-element-clip", "aggregation": {"kind": "seq-mean-token-sum-norm", "norm": 9}},
    {"divergence": {"kind": "eakl", "rows": 4}, "gate": "wrong", **RL},
    {"divergence": "sinkd", "selection": TIP, "step_weight": "sod"},
    {"divergence": {"kind": "pld", "k": 8}, "kd_coef": 0.1, "rl": "rloo", "rl_coef": {"kind": "linear", "start": 0, "by": 0.5}},
]  # fmt: skip


@pytest.mark.parametrize("method", COMBINATIONS, ids=str)
def test_axes_combine_and_train(method: dict[str, Any], models: Models, tmp_path: Path) -> None:
    student = copy.deepcopy(models[0])
    [record] = loop(tmp_path, student, experiment(method=method, **{"train.minibatches": 2}), *models[1:])
    assert record["grad_norm"] > 0
    assert math.isclose(sum(record["token_shares"].values()), 1.0)
    assert any(
        bool((new != old).any()) for new, old in zip(student.model.parameters(), models[0].model.parameters(), strict=True)
    )


def test_combinations_try_every_entry_that_presets_do_not() -> None:
    methods = [Method.load(each) for each in [*COMBINATIONS, *PRESETS]]
    for axis, registry in AXES.items():
        tried = {getattr(method, axis).name for method in methods}
        assert {name for name in registry.names() if not name.startswith("test-")} <= tried | {"k1"}, axis


def test_sod_under_tcod_with_tip_and_vopd_is_one_file(models: Models, tmp_path: Path) -> None:
    text = """
    method: {preset: sod, baseline: vopd, selection: {kind: tip, ratio: 0.5}}
    schedule: {kind: tcod-f2b, start: 1, every: 1}
    """
    config = experiment(**yaml.safe_load(text), **{"train.iterations": 2})
    first, second = loop(tmp_path, copy.deepcopy(models[0]), config, *models[1:])
    assert (first["depth"], second["depth"]) == (2, None)
    assert first["kd_abs"] > 0 < first["rl_abs"]
    assert first["token_shares"]["selection"] == pytest.approx(first["token_shares"]["kept"])
    assert set(first["weight_by_step"]) != {1.0}


@pytest.mark.parametrize("teacher", ["initial", "ema", "live"])
@pytest.mark.parametrize("method", ["opsd", "opd"])
def test_the_students_own_weights_teach_where_they_see_the_plan(
    teacher: str, method: str, models: Models, tmp_path: Path
) -> None:
    config = experiment(teacher={"model": teacher, "privileged": True}, method=method, **{"train.minibatches": 2})
    [record] = loop(tmp_path, copy.deepcopy(models[0]), config, *models[1:])
    assert record["kl"] > 1e-5
    assert record["grad_norm"] > 0


def test_coefficients_follow_the_iterations_of_the_run(models: Models, tmp_path: Path) -> None:
    method = {"preset": "opd-exact", "kd_coef": {"kind": "linear", "start": 0.0, "by": 1.0}}
    still = {"train.iterations": 3, "train.lr": 1e-12, "train.weight_decay": 0.0}
    records = loop(tmp_path, copy.deepcopy(models[0]), experiment(method=method, **still), *models[1:])
    assert [record["kd_abs"] / record["kl"] for record in records] == pytest.approx([1.0, 2.0, 3.0], rel=1e-3)


@SIGNALS.register("test-lost")
def lost(table: TokenTable) -> FloatArray:
    """A signal whose values are lost on the way."""
    return np.zeros(len(table))


@pytest.mark.parametrize("rest", [{}, {"rl": "grpo"}])
def test_a_signal_that_does_not_reach_the_gradient_is_refused_before_the_first_update(
    rest: dict[str, Any], models: Models, tmp_path: Path
) -> None:
    student = copy.deepcopy(models[0])
    with pytest.raises(UserError, match=r"signal 'test-lost' has no effect: at iteration 1 .* or the method multiplies it by"):
        loop(tmp_path, student, experiment(method={"signal": "test-lost", **rest}), *models[1:])
    for new, old in zip(student.model.parameters(), models[0].model.parameters(), strict=True):
        assert torch.equal(new, old)


def test_a_clip_that_holds_every_token_is_named(models: Models, tmp_path: Path) -> None:
    config = experiment(method={"preset": "opsd", "divergence": {"clip": 1e-9}})
    with pytest.raises(UserError, match=r"divergence 'opsd' has no effect: .*, or its clip of 1e-09 nats holds every token"):
        loop(tmp_path, copy.deepcopy(models[0]), config, *models[1:])


def test_a_term_as_small_as_its_coefficient_is_one_that_arrives(models: Models, tmp_path: Path) -> None:
    small = {"signal": "opd", "kd_coef": 1e-12}
    [record] = loop(tmp_path, copy.deepcopy(models[0]), experiment(method=small), *models[1:])
    assert 0 < record["kd_abs"] < 1e-11


def test_a_gate_that_is_shut_at_first_is_no_lost_signal(models: Models, tmp_path: Path) -> None:
    shut = {"preset": "sod", "gate": {"kind": "wrong", "threshold": -1.0}}
    [record] = loop(tmp_path, copy.deepcopy(models[0]), experiment(method=shut), *models[1:])
    assert record["kd_abs"] == 0
    assert record["token_shares"]["kept"] == 0
    assert record["grad_norm_silent"] == pytest.approx(record["grad_norm"])


def test_the_gradient_without_the_distillation_term_is_measured_now_and_then_where_it_costs_a_pass(
    models: Models, tmp_path: Path
) -> None:
    sizes = {"train.iterations": 11, "train.minibatches": 2, "sampling.max_tokens": 1}
    free = loop(tmp_path / "a", copy.deepcopy(models[0]), experiment(method="opd-exact", **sizes), *models[1:])
    assert [record["grad_norm_silent"] for record in free] == [0.0] * 11
    paid = loop(tmp_path / "b", copy.deepcopy(models[0]), experiment(method="sod", **sizes), *models[1:])
    assert [i for i, record in enumerate(paid, 1) if "grad_norm_silent" in record] == [1, 11]


def test_a_teacher_with_the_students_weights_has_no_effect_whoever_it_is(models: Models, tmp_path: Path) -> None:
    student = copy.deepcopy(models[0])
    with pytest.raises(
        UserError, match=r"signal 'opd' has no effect: .* either teacher 'tiny-0' says nothing that the student"
    ):
        loop(tmp_path, student, experiment(), copy.deepcopy(models[0]), models[2])


def test_a_schedule_may_begin_where_student_and_teacher_say_the_same(models: Models, tmp_path: Path) -> None:
    """As in games that all begin with one command: what comes later is not yet seen, and the run goes on to it."""
    config = experiment(schedule="tcod-f2b")
    [record] = loop(tmp_path, copy.deepcopy(models[0]), config, copy.deepcopy(models[0]), models[2])
    assert record["depth"] == 1
    assert record["kl"] == pytest.approx(0, abs=1e-6)


def test_a_lost_signal_is_refused_under_a_schedule_too(models: Models, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="signal 'test-lost' has no effect"):
        loop(tmp_path, copy.deepcopy(models[0]), experiment(method={"signal": "test-lost"}, schedule="tcod-f2b"), *models[1:])
