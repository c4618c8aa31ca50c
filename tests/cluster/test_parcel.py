"""What crosses between processes: distributions whole, their output heads once."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from agentdistill.cluster.parcel import Packer, Unpacker
from agentdistill.policies.scorer import HiddenDistribution
from agentdistill.policies.top import TopDistribution
from agentdistill.training.panel import Narrow


@pytest.fixture
def sides() -> tuple[Packer, Unpacker]:
    return Packer(), Unpacker(torch.device("cpu"))


def test_every_distribution_says_the_same_on_the_other_side(sides: tuple[Packer, Unpacker]) -> None:
    packer, unpacker = sides
    hidden = HiddenDistribution(torch.randn(5, 8), nn.Linear(8, 11, bias=False))
    tops = TopDistribution(torch.tensor([[3, 1], [0, 2]]), torch.tensor([[-0.5, -1.5], [-1.0, -1.1]]), 11)
    given: list[Any] = [hidden, Narrow(hidden, 7), tops]
    for ours, theirs in zip(given, unpacker.unpack(packer.pack(given)), strict=True):
        assert type(theirs) is type(ours)
        assert torch.equal(ours.logprobs(slice(0, 2)), theirs.logprobs(slice(0, 2)))


def test_a_head_is_sent_again_only_when_it_has_changed(sides: tuple[Packer, Unpacker]) -> None:
    packer, unpacker = sides
    head = nn.Linear(64, 500, bias=False)
    first = packer.pack(HiddenDistribution(torch.randn(2, 64), head))
    second = packer.pack(HiddenDistribution(torch.randn(2, 64), head))
    assert len(second) < 4000
    assert len(first) > 4 * head.weight.numel()
    one, two = unpacker.unpack(first), unpacker.unpack(second)
    assert one.head is two.head
    with torch.no_grad():
        head.weight.mul_(2)
    third = unpacker.unpack(packer.pack(HiddenDistribution(torch.randn(2, 64), head)))
    assert torch.equal(third.head.weight, head.weight)
    assert torch.equal(one.head.weight, head.weight / 2)
    assert len(unpacker._modules) == 1


def test_a_head_that_is_gone_is_forgotten(sides: tuple[Packer, Unpacker]) -> None:
    packer, unpacker = sides
    for _ in range(3):  # as a live teacher has a new copy every time
        unpacker.unpack(packer.pack(HiddenDistribution(torch.randn(2, 8), nn.Linear(8, 8))))
        gc.collect()
    assert len(unpacker._modules) == 1


def test_a_view_arrives_without_what_lies_beside_it_and_any_kind_of_tensor_whole(sides: tuple[Packer, Unpacker]) -> None:
    packer, unpacker = sides
    whole = torch.randn(10_000, 4)
    given = [whole[7:9], whole.T[1], torch.empty(0, 3), torch.tensor(2.5, dtype=torch.bfloat16), torch.arange(3) > 1]
    parcel = packer.pack(given)
    assert len(parcel) < 45_000 < len(pickle.dumps(given))
    for ours, theirs in zip(given, unpacker.unpack(parcel), strict=True):
        assert theirs.dtype == ours.dtype
        assert torch.equal(theirs, ours)
