"""Supervised steps on the experts' tokens (whole stages are tested with the runs)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from agentdistill.config import SftSection
from agentdistill.console import Console
from agentdistill.demonstrations import Example
from agentdistill.errors import UserError
from agentdistill.intervals import Rate, wilson
from agentdistill.policies import shared
from agentdistill.policies.model import CausalLM
from agentdistill.training.journal import Journal
from agentdistill.training.sft import _backward, _batches, supervise

Maker = Callable[[int], CausalLM]


def examples(n: int, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        ids = [rng.randrange(5, 250) for _ in range(rng.randint(4, 20))]
        out.append(Example(ids, [(i > 1 and rng.random() < 0.5) or i == 2 for i in range(len(ids))]))
    return out


def never(step: int) -> Rate:
    raise AssertionError("nobody asked for a validation")


def train(lm: CausalLM, data: list[Example], folder: Path, **kwargs: Any) -> Journal:
    validate = kwargs.pop("validate", never)
    settings = {"steps": 6, "batch": 3, "lr": 1e-3, "checkpoint_every": 4} | kwargs
    journal = Journal(folder)
    supervise(
        lm, data, SftSection(**settings), journal, role="teacher", seed=3, budget=4096, validate=validate,
        console=Console(lambda text: None),
    )  # fmt: skip
    return journal


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("budget", [4096, 30, 1])
def test_loss_and_gradient_are_of_the_mean_cross_entropy_of_target_tokens(make_lm: Maker, budget: int, packed: bool) -> None:
    lm, whole, batch = make_lm(0), make_lm(0), examples(4)
    lm.packed = packed
    batch.append(Example([7, 8, 9], [True, False, True]))  # nothing precedes a first token, so it is no target
    batch.append(Example([7, 8, 9], [True, False, False]))
    loss, tokens = _backward(lm, batch, budget)
    nats = []
    for example in batch:
        logits = whole.model(input_ids=torch.tensor([example.ids])).logits[0]
        logprobs = torch.log_softmax(logits, -1)
        nats += [-logprobs[t - 1, example.ids[t]] for t in range(1, len(example.ids)) if example.target[t]]
    mean = torch.stack(nats).mean()
    mean.backward()  # type: ignore[no-untyped-call]
    assert tokens == len(nats)
    assert loss == pytest.approx(float(mean.detach()), abs=1e-5)
    for ours, theirs in zip(lm.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("packed", [True, False])
def test_a_pass_computes_no_more_tokens_than_the_budget(make_lm: Maker, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    lm, computed, whole = make_lm(0), [], CausalLM.hidden
    monkeypatch.setattr(shared, "LEAST", 8)
    alike = [Example(list(range(10, 60)), [i > 20 for i in range(50)])] * 3  # a task that was shown three times
    lm.packed = packed

    def hidden(self: CausalLM, ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        computed.append(ids.numel())
        return whole(self, ids, **kwargs)

    monkeypatch.setattr(CausalLM, "hidden", hidden)
    _backward(lm, [*examples(9), *alike], 60)
    assert len(computed) > 1
    assert max(computed) <= 60


def test_each_epoch_shows_every_example_once_and_a_later_start_gives_the_same_batches() -> None:
    data, config = examples(7), SftSection(batch=3)
    stream = _batches(data, config, seed=5, start=0)
    batches = [next(stream) for _ in range(14)]
    seen = [id(e) for batch in batches for e in batch]
    epochs = [seen[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == sorted(id(e) for e in data) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    later = _batches(data, config, seed=5, start=4)
    assert [[id(e) for e in next(later)] for _ in range(3)] == [[id(e) for e in batch] for batch in batches[4:7]]


def test_a_stage_cut_after_a_checkpoint_ends_in_the_same_weights(make_lm: Maker, tmp_path: Path) -> None:
    data = examples(7)
    whole, cut = make_lm(0), make_lm(0)
    train(whole, data, tmp_path / "whole")

    class Killed(Exception):
        pass

    def stop(step: int) -> Rate:
        if step == 5:
            raise Killed
        return wilson(0, 1)

    with pytest.raises(Killed):
        train(cut, data, tmp_path / "cut", eval_every=1, validate=stop)
    again = make_lm(1)  # other weights, all replaced from the checkpoint
    train(again, data, tmp_path / "cut")
    for (name, a), (_, b) in zip(whole.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_training_ends_when_validation_is_good_enough(make_lm: Maker, tmp_path: Path) -> None:
    asked: list[int] = []

    def validate(step: int) -> Rate:
        asked.append(step)
        return wilson(len(asked), 3)

    train(make_lm(0), examples(5), tmp_path, steps=50, eval_every=2, stop_at_success=0.6, validate=validate)
    assert asked == [2, 4]


def test_a_success_to_stop_at_needs_validations(make_lm: Maker, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"teacher\.sft\.stop_at_success needs teacher\.sft\.eval_every"):
        train(make_lm(0), examples(5), tmp_path, stop_at_success=0.5)


@pytest.mark.parametrize("data", [[], [Example([5, 6, 7], [False] * 3)], [Example([5], [True])]])
def test_demonstrations_without_a_target_are_refused(make_lm: Maker, tmp_path: Path, data: list[Example]) -> None:
    with pytest.raises(UserError, match="no demonstration for the teacher holds an expert's message"):
        train(make_lm(0), data, tmp_path)


def test_demonstrations_without_a_target_are_left_out_of_the_batches(make_lm: Maker, tmp_path: Path) -> None:
    empty = Example([9, 9, 9], [False] * 3)
    a, b = make_lm(0), make_lm(0)
    train(a, [empty, *examples(3), empty], tmp_path / "a", batch=1)
    train(b, examples(3), tmp_path / "b", batch=1)
    assert torch.equal(a.head.weight, b.head.weight)
