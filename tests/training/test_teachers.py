"""Teachers of the student's own weights: what they are after each update, and in a resumed run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from agentdistill import environment
from agentdistill.errors import UserError
from agentdistill.policies.base import ScoreRequest
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.training.teachers import MovingAverage, frozen_copy
from tests.training.looped import Even, experiment, loop

Maker = Callable[[int], CausalLM]


class Stopped(Exception):
    """What ends a session in the middle."""


@pytest.fixture(autouse=True)
def even() -> Iterator[None]:
    environment.register("lab/Even-v0", Even)
    yield
    environment.unregister("lab/Even-v0")


def weights(lm: CausalLM) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in lm.model.parameters()])


def test_a_moving_average_is_the_sum_of_all_weights_so_far_with_falling_shares(make_lm: Maker) -> None:
    students = [make_lm(seed) for seed in range(4)]
    average = MovingAverage(frozen_copy(students[0], "ema"), 0.75)
    for student in students[1:]:
        average.update(student)
    shares = (0.75**3, 0.25 * 0.75**2, 0.25 * 0.75, 0.25)
    expected = torch.stack([share * weights(lm) for share, lm in zip(shares, students, strict=True)]).sum(0)
    torch.testing.assert_close(weights(average.lm), expected)
    assert torch.equal(weights(students[0]), weights(make_lm(0)))


def test_a_moving_average_comes_back_from_disk_to_the_bit_and_a_lost_file_is_named(make_lm: Maker, tmp_path: Path) -> None:
    average, other = MovingAverage(make_lm(0)), MovingAverage(make_lm(1))
    average.save(tmp_path)
    other.load(tmp_path)
    assert torch.equal(weights(average.lm), weights(other.lm))
    (tmp_path / "teacher.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        other.load(tmp_path)


def test_a_live_scorers_answers_stay_what_they_were_when_the_weights_move(make_lm: Maker) -> None:
    lm = make_lm(0)
    request = [ScoreRequest(list(range(5, 15)), [3, 7])]
    (live,), (plain,) = (TransformersScorer(lm, live=live).score(request) for live in (True, False))
    assert live.distribution is not None
    assert plain.distribution is not None
    before = live.distribution.logprobs(slice(None))
    assert torch.equal(before, plain.distribution.logprobs(slice(None)))
    with torch.no_grad():
        lm.head.weight.mul_(2)
    assert torch.equal(live.distribution.logprobs(slice(None)), before)
    assert not torch.equal(plain.distribution.logprobs(slice(None)), before)


def test_a_run_with_a_moving_average_that_was_stopped_resumes_to_the_same_numbers(make_lm: Maker, tmp_path: Path) -> None:
    start = make_lm(0)
    settings = {"train.iterations": 4, "train.checkpoint_every": 2, "train.lr": 1e-2}
    about = experiment(teacher={"model": "ema", "decay": 0.5, "privileged": True}, method="opsd", **settings)

    def stop(iteration: int) -> None:
        raise Stopped

    whole = loop(tmp_path / "whole", copy.deepcopy(start), about, start, start)
    cut = experiment(teacher={"model": "ema", "decay": 0.5, "privileged": True}, method="opsd", **settings, **{"eval.every": 3})
    with pytest.raises(Stopped):
        loop(tmp_path / "cut", copy.deepcopy(start), cut, start, start, stop)
    resumed = loop(tmp_path / "cut", copy.deepcopy(start), about, start, start)
    assert resumed == whole
    frozen = experiment(teacher={"model": "initial", "privileged": True}, method="opsd", **settings)
    assert loop(tmp_path / "frozen", copy.deepcopy(start), frozen, start, start)[-1]["kl"] != whole[-1]["kl"]
