"""Seconds of an iteration: what is added up, by a meter whose every price is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import agentdistill as ad
from agentdistill.cost.devices import device
from agentdistill.cost.layout import Layout
from agentdistill.cost.meters import Meter, Passes, Roofline
from agentdistill.cost.models import models_of
from agentdistill.cost.seconds import seconds
from agentdistill.cost.shape import Shape, shape_of
from agentdistill.cost.work import Lengths, work_of
from tests.cost.test_memory import EPISODE, MODELS


class Priced:
    """A meter of round prices: a token read 1 s, a step 10 s, a pass 100 s, an optimizer step 1000 s, a byte nothing."""

    def decode(self, shape: Shape, rows: float, context: int, steps: float) -> float:
        self.rows = rows
        return 10 * steps

    def read(self, shape: Shape, rows: float, new: float, context: int) -> float:
        return 100 + rows * new

    def score(self, shape: Shape, passes: Passes) -> float:
        return passes.tokens

    def train(self, shape: Shape, passes: Passes, again: bool = False) -> float:
        return (4 if again else 3) * passes.tokens

    def step(self, numbers: float) -> float:
        return 1000

    def send(self, sent: float) -> float:
        self.sent = sent
        return 0

    def ranked(self) -> Meter:
        return self


def taken(
    layout: Layout | None = None, lengths: Lengths = EPISODE, meter: Meter | None = None, **changes: Any
) -> dict[str, float]:
    config = ad.experiment({**MODELS, "method": "opd-exact", "train": {"tasks": 8}}, changes)
    return seconds(config, models_of(config), work_of(config, lengths), layout or Layout(), meter or Priced())


def test_every_round_reads_prompts_once_and_every_further_token_is_a_step() -> None:
    meter = Priced()
    found = taken(meter=meter)
    assert found["generate"] == 4 * 100 + 8 * 160 + 10 * (64 - 4)
    assert meter.rows == pytest.approx(8 * (40 - 4) / 60)  # messages of all lengths, as many tokens in all


def test_passes_compute_what_is_not_shared_and_an_update_ends_with_a_step() -> None:
    lengths = dataclasses.replace(EPISODE, passed=0.5, told=0.75)
    assert taken(lengths=lengths)["score"] == 8 * 200 * 0.5
    assert taken(lengths=lengths)["update"] == 3 * 8 * 200 * 0.5 + 1000
    assert taken(lengths=lengths, **{"train.activation_checkpointing": True})["update"] == 4 * 8 * 200 * 0.5 + 1000
    assert taken(lengths=lengths, **{"teacher.privileged": True})["score"] == 8 * 200 * 0.75
    twice = taken(lengths=lengths, **{"train.minibatches": 2, "train.epochs": 3})
    assert twice["update"] == 3 * 3 * 8 * 200 * 0.5 + 6 * 1000
    assert twice["score"] == 2 * 8 * 200 * 0.5  # the student's own pass, before its weights change


def test_teachers_of_a_panel_share_the_episodes() -> None:
    two = {"teacher": None, "teachers": {"a": {"model": "lab/Small-1.5B"}, "b": {"model": "lab/Small-0.6B"}}}
    assert taken(**two)["score"] == taken()["score"]


def test_ranks_and_actors_share_the_work_where_each_has_a_device() -> None:
    whole, ranks = taken(), taken(Layout(ranks=4))
    assert ranks["update"] == whole["update"] / 4
    assert ranks["generate"] == whole["generate"]
    actors = taken(Layout(ranks=2, apart=True, samplers=4, scorers=2))
    assert (actors["generate"], actors["score"]) == (whole["generate"] / 4, whole["score"] / 2)
    here = taken(Layout(ranks=4, together=True))
    assert here["update"] == whole["update"]


def test_ranks_gather_the_layers_twice_and_share_out_their_gradients() -> None:
    meter, student = Priced(), shape_of("lab/Small-0.6B")
    taken(Layout(ranks=4), meter=meter, **{"train.token_budget": 256})
    inside, batches = student.parameters - student.root, 2  # 8 episodes of 200 tokens, two a rank, in passes of one
    passes = batches * 0.75 * 4 * (3 * inside + 2 * student.root)
    assert meter.sent == pytest.approx(passes + 0.75 * 4 * student.parameters + 4 * 8 * 40 * shape_of("lab/Small-1.5B").width)


def test_a_device_is_never_faster_than_its_figures() -> None:
    shape, h100 = shape_of("lab/Small-1.5B"), device("h100")
    meter = Roofline(h100)
    passes = Passes(1e6, 8192, 512, 1e5)
    assert meter.decode(shape, 1, 100, 1) >= 4 * shape.body / h100.bandwidth
    assert meter.decode(shape, 1, 100, 7) == 7 * meter.decode(shape, 1, 100, 1)
    assert meter.score(shape, passes) >= 2 * shape.body * 1e6 / h100.flops[4]
    assert meter.train(shape, passes) >= 3 * meter.score(shape, passes)
    assert meter.train(shape, passes, again=True) == pytest.approx(4 / 3 * meter.train(shape, passes))
    assert meter.decode(shape, 64, 4000, 1) > meter.decode(shape, 64, 100, 1)
    assert meter.ranked().train(shape, passes) == pytest.approx(meter.train(shape, passes) * 67 / 989)
    assert meter.send(9e11) == pytest.approx(2)


def test_a_small_model_on_a_device_waits_for_its_kernels() -> None:
    shape, meter = shape_of("tiny:64x3"), Roofline(device("h100"))
    launched = 3 * device("h100").layer_seconds
    assert meter.score(shape, Passes(1000, 100, 50, 10)) == pytest.approx(10 * launched)
    assert meter.read(shape, 4, 10, 50) == pytest.approx(launched)
