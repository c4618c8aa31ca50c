"""Bytes of each process, against sums made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

import agentdistill as ad
from agentdistill.cost.layout import Layout
from agentdistill.cost.memory import PHASES, Needs, Role, fewest
from agentdistill.cost.models import models_of
from agentdistill.cost.shape import shape_of
from agentdistill.cost.work import Lengths, work_of
from tests.needs import needs as ray_is_installed

MODELS: dict[str, Any] = {
    "env": {"id": "agentdistill/ALFWorld-v0"}, "student": {"model": "lab/Small-0.6B"}, "teacher": {"model": "lab/Small-1.5B"},
}  # fmt: skip
EPISODE = Lengths(4.0, 40.0, 200.0, 0.0, "a test", rounds=4.0, steps=64.0, given=160.0)
LONG = Lengths(4.0, 400.0, 2000.0, 0.0, "a test", rounds=4.0, steps=640.0, given=1600.0)
STUDENT, TEACHER = shape_of("lab/Small-0.6B"), shape_of("lab/Small-1.5B")


def needs(changes: dict[str, Any] | None = None, lengths: Lengths = EPISODE, gpu: bool = False) -> Needs:
    config = ad.experiment({**MODELS, "train": {"tasks": 8}}, changes or {})
    return Needs(config, models_of(config), work_of(config, lengths), base=0.0, gpu=gpu)


def parts(changes: dict[str, Any] | None = None, lengths: Lengths = EPISODE) -> dict[str, float]:
    (role,) = needs(changes, lengths).roles(Layout())
    return role.bytes


def by_name(layout: Layout, gpu: bool = False, **changes: Any) -> dict[str, Role]:
    return {each.name: each for each in needs(changes, gpu=gpu).roles(layout)}


def test_student_takes_twelve_bytes_a_parameter_and_teacher_four() -> None:
    found = parts()
    assert found["student and optimizer"] == 12 * STUDENT.parameters
    assert found["teachers and references"] == 4 * TEACHER.parameters
    assert found["updating"] > 4 * STUDENT.parameters


def test_a_teacher_of_the_students_weights_is_a_copy_and_a_live_one_is_none() -> None:
    copy, live = (parts({"teacher.model": kind, "teacher.privileged": True}) for kind in ("initial", "live"))
    assert copy["teachers and references"] == 4 * STUDENT.parameters
    assert live["teachers and references"] == 0
    assert live["scoring"] == copy["scoring"]


def test_an_adapter_has_a_small_optimizer_and_its_initial_teacher_is_no_copy() -> None:
    whole, lora = parts(), parts({"student.lora": {"r": 8}, "teacher.model": "initial", "teacher.privileged": True})
    assert lora["student and optimizer"] < 0.4 * whole["student and optimizer"]
    assert lora["teachers and references"] == 0


def test_a_smaller_token_budget_takes_less_to_update_and_computing_layers_again_less_still() -> None:
    small, large, again = (
        parts({"train.token_budget": budget, "train.activation_checkpointing": again}, LONG)["updating"]
        for budget, again in ((2048, False), (8192, False), (8192, True))
    )
    assert small < 0.5 * large
    kept = STUDENT.layers * STUDENT.width + STUDENT.saved_numbers / STUDENT.layers
    assert large - again == pytest.approx(4 * 8192 * (STUDENT.saved_numbers - kept))


@pytest.mark.parametrize("again", [False, True])
def test_each_sequence_keeps_keys_and_values_of_what_it_begins_alike_with_others(again: bool) -> None:
    changes = {"train.token_budget": 1_000, "train.activation_checkpointing": again}  # both fill a micro-batch
    alone, alike = (parts(changes, replace(LONG, passed=share))["updating"] for share in (1.0, 0.25))
    copied = 4 * 3 * 2_000 * STUDENT.cached_numbers  # a pass of 2,000 tokens, a sequence's, reads 8,000
    assert alike - alone == pytest.approx(copied / (STUDENT.layers if again else 1))


def test_a_rewarded_method_keeps_a_second_gradient_on_a_cpu() -> None:
    plain, rewarded = parts({"method": "opd"})["updating"], parts({"method": "kdrl"})["updating"]
    assert rewarded - plain == pytest.approx(4 * STUDENT.parameters)


def test_the_peak_is_what_is_always_there_and_the_worst_phase() -> None:
    found = {"process": 1.0, "student and optimizer": 2.0, "teachers and references": 3.0} | dict.fromkeys(PHASES, 1.0)
    assert Role("process", 1, {**found, "playing": 7.0}).peak == 13.0


def test_a_shard_is_every_tensor_cut_along_its_first_dimension() -> None:
    shape = shape_of(
        "tiny:64x3", vocabulary=301, context=256
    )  # by three ranks neither vocabulary nor widths are divided evenly
    table = math.ceil(301 / 3) * 64
    inner = -(-8 * 64 // 96) * 32
    layer = 4 * math.ceil(64 / 3) * 64 + 2 * math.ceil(inner / 3) * 64 + math.ceil(64 / 3) * inner + 2 * math.ceil(64 / 3)
    assert shape.shard(3) == table + 3 * layer + math.ceil(64 / 3)
    assert shape.shard(1) == shape.parameters
    assert shape.root == 301 * 64 + 64
    assert 3 * shape.layer + shape.root == shape.parameters


def test_each_rank_holds_a_shard_and_the_first_the_student_and_its_teachers_as_well() -> None:
    found = by_name(Layout(ranks=4))
    first, other = found["rank 0"], found["rank 1"]
    assert (first.count, other.count) == (1, 3)
    assert first.bytes["shard and optimizer"] == other.bytes["shard and optimizer"] == 12 * STUDENT.shard(4)
    assert first.bytes["student"] == 4 * STUDENT.parameters
    assert first.bytes["teachers and references"] == 4 * TEACHER.parameters
    assert "playing" not in other.bytes
    gathered = 4 * (STUDENT.root + 2 * STUDENT.layer) + 4 * STUDENT.vocabulary * STUDENT.width
    share = 8 * 200 / 4
    expected = 4 * STUDENT.shard(4) + 4 * share * STUDENT.saved_numbers + gathered
    assert other.bytes["updating"] == pytest.approx(expected, rel=0.1)  # and the chunks of logits, and answers


def test_ranks_on_gpus_compute_in_half_the_width() -> None:
    cpu, gpu = (by_name(Layout(ranks=4), gpu=gpu)["rank 1"].bytes for gpu in (False, True))
    assert cpu["shard and optimizer"] == gpu["shard and optimizer"]
    numbers = STUDENT.saved_numbers + 4 * STUDENT.config.intermediate_size  # and four gradients of the widest activation
    saved = 4 * 8 * 200 / 4 * numbers + 4 * (STUDENT.root + 2 * STUDENT.layer)
    chunks = 20 * min(1 << 26, 8 * 40 / 4 * STUDENT.vocabulary) - 20 * min(3 << 21, 8 * 40 / 4 * STUDENT.vocabulary)
    assert cpu["updating"] - gpu["updating"] == pytest.approx(saved / 2 - chunks)


def test_rays_roles_have_what_they_do_and_the_driver_the_rest() -> None:
    ray_is_installed("ray")
    found = by_name(Layout(ranks=2, apart=True, samplers=4, scorers=2), engine={"kind": "ray"})
    driver, trainer, sampler, teacher = (found[each] for each in ("driver", "trainer", "sampler", "teacher lab/Small-1.5B"))
    assert [each.count for each in (driver, trainer, sampler, teacher)] == [1, 2, 4, 2]
    assert not driver.device
    assert driver.bytes["student"] == sampler.bytes["student"] == 4 * STUDENT.parameters
    assert driver.bytes["playing"] == 0
    assert driver.bytes["teachers and references"] == 0
    assert teacher.bytes["teachers and references"] == 4 * TEACHER.parameters
    assert trainer.bytes["shard and optimizer"] == 12 * STUDENT.shard(2)
    alone = by_name(Layout(), gpu=True)["process"].bytes["playing"]
    assert sampler.bytes["playing"] == alone / 4  # of 8 episodes it has two


def test_the_fewest_ranks_are_those_whose_memory_fits() -> None:
    made = needs(lengths=LONG)
    sizes = {n: max(each.peak for each in made.roles(Layout(ranks=n))) for n in (1, 2, 3, 4, 5)}
    for n in (2, 3, 5):
        assert fewest(lambda n: made.roles(Layout(ranks=n)), sizes[n]) == (n if sizes[n] < sizes[1] else 1)
    assert fewest(lambda n: made.roles(Layout(ranks=n)), 0.99 * 4 * (STUDENT.parameters + TEACHER.parameters)) == 0


def test_on_a_cpu_playing_comes_on_top_of_what_an_update_of_small_tensors_has_left() -> None:
    small, large = ({"train.token_budget": budget, "train.tasks": 64} for budget in (1024, 65_536))
    for changes, left in ((small, True), (large, False)):
        cpu, gpu = (needs(changes, gpu=gpu).roles(Layout())[0].bytes for gpu in (False, True))
        assert cpu["playing"] == gpu["playing"] + (cpu["updating"] if left else 0)
    (first, *_) = needs(small).roles(Layout(ranks=2))
    assert first.bytes["playing"] > first.bytes["updating"]
