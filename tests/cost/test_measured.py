"""What is measured on this machine is what the library does there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import agentdistill as ad
from agentdistill.cost.episodes import made_up
from agentdistill.cost.measured import Measured
from agentdistill.cost.meters import Passes
from agentdistill.cost.own import own_seconds
from agentdistill.cost.shape import Shape, shape_of
from agentdistill.cost.work import Lengths, work_of
from agentdistill.signals import Method
from tests.training.test_run import BASE

LENGTHS = Lengths(4.0, 40.0, 200.0, 0.0, "a test", rounds=4.0, steps=40.0, given=160.0)


@pytest.fixture(scope="module")
def shape() -> Shape:
    return shape_of("tiny:32x3", vocabulary=300, context=256)


@pytest.fixture(scope="module")
def here() -> Measured:
    return Measured(Method.load("opd-exact"))


def test_no_more_rows_are_measured_than_a_machine_holds(shape: Shape, here: Measured) -> None:
    many, more = here.decode(shape, 10**8, 8, 30), here.decode(shape, 2 * 10**8, 8, 30)
    assert more == pytest.approx(2 * many)
    assert many > 10**5 * here.decode(shape, 256, 8, 30)


def test_more_tokens_and_steps_take_as_much_longer(shape: Shape, here: Measured) -> None:
    one, two = (here.score(shape, Passes(n, 512, 64, n / 4)) for n in (10_000, 20_000))
    assert 0 < two == pytest.approx(2 * one)
    one, two = (here.train(shape, Passes(n, 512, 64, n / 4)) for n in (10_000, 20_000))
    assert 0 < two == pytest.approx(2 * one)
    assert 0 < here.step(2e6) == pytest.approx(2 * here.step(1e6))
    assert 0 < here.send(2e6) == pytest.approx(2 * here.send(1e6))
    few, some, more = (here.decode(shape, 4, 32, n) for n in (12, 22, 32))
    assert 0 < more - some == pytest.approx(some - few)
    assert 0 < here.read(shape, 4, 10_000, 32) == pytest.approx(2 * here.read(shape, 4, 5000, 32))


@pytest.mark.parametrize("method", ["opd", "opd-exact", "sod", "kdrl", "grpo"])
def test_the_methods_own_loss_is_measured_and_draws_nothing(method: str, shape: Shape) -> None:
    before = torch.random.get_rng_state()
    assert Measured(Method.load(method)).train(shape, Passes(512, 256, 64, 128)) > 0
    assert torch.equal(before, torch.random.get_rng_state())


def test_made_up_episodes_are_as_long_as_they_are_to_be() -> None:
    played = made_up(3, LENGTHS, contexts=2)
    assert [len(t.turns) for t in played] == [4, 4, 4]
    assert [t.n_action_tokens for t in played] == [40, 40, 40]
    assert [len(t.stream().ids) for t in played] == [200, 200, 200]
    assert [int(t.stream().segment[-1]) for t in played] == [1, 1, 1]
    assert len({t.turns[0].prompt_ids[0] for t in played}) == 3  # nothing is shared


def test_what_the_program_itself_takes_grows_with_the_episodes() -> None:
    def taken(**changes: Any) -> float:
        config = ad.experiment(BASE, changes)
        return own_seconds(config, work_of(config, LENGTHS))

    assert 0 < taken(**{"train.tasks": 2}) < taken(**{"train.tasks": 640, "train.rollouts": 4})
