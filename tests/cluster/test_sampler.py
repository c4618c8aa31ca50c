"""Sampling by actors: what one process says, whoever is lost meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from agentdistill.engines.registry import Setup
from agentdistill.policies.adapter import attach
from agentdistill.policies.base import ContinuousSampler, Request, Sample, SamplingParams
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from tests.needs import needs

needs("ray", "pip install 'agentdistill[ray]'")

PARAMS = SamplingParams(max_tokens=12)
LONG = SamplingParams(max_tokens=400)
SAID: list[str] = []


@pytest.fixture(scope="module")
def lm(make_lm: Callable[[int], CausalLM]) -> CausalLM:
    return make_lm(1)


@pytest.fixture(scope="module")
def engine(cluster: Any, setup_of: Callable[..., Setup]) -> Iterator[Any]:
    """Two sampler actors; tests change their model's weights, and lose them."""
    from agentdistill.cluster.engine import RayEngine

    made = RayEngine(setup_of(SAID, samplers=2))
    yield made
    made.close()


def asked(n: int = 6, turn: int = 0) -> list[Request]:
    return [Request(i, [5 + i, 7, *range(5, 20 + turn)], 100 * turn + i, frozenset({1})) for i in range(n)]


def same(ours: Sequence[Sample], theirs: Sequence[Sample]) -> None:
    assert [each.ids for each in ours] == [each.ids for each in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert a.finish == b.finish


def pids(engine: Any) -> list[int]:
    """Of the sampler actors, by place."""
    from agentdistill.cluster.connect import ray

    return ray.get([member.actor.__ray_call__.remote(lambda _: os.getpid()) for member in engine._playing[1].crew._members])


def lost() -> list[str]:
    """What was said of lost actors since this was asked last."""
    found = [line for line in SAID if "was lost" in line]
    SAID.clear()
    return found


def test_two_actors_say_what_one_process_says_and_compute_each_token_once(engine: Any, lm: CausalLM) -> None:
    from agentdistill.cluster.connect import ray

    local, sampler = TransformersSampler(lm), engine.sampler(lm)
    for turn in range(3):
        same(sampler.generate(asked(turn=turn), PARAMS), local.generate(asked(turn=turn), PARAMS))
    members = engine._playing[1].crew._members
    forwarded = ray.get([m.actor.__ray_call__.remote(lambda host: host._sampler.forwarded) for m in members])
    assert sum(forwarded) == local.forwarded  # so an episode was with one actor, which had its cache
    sampler.release([0, 3])
    same(sampler.generate(asked(turn=3), PARAMS), local.generate(asked(turn=3), PARAMS))


def test_new_weights_reach_every_actor_before_it_says_anything(engine: Any, lm: CausalLM) -> None:
    sampler = engine.sampler(lm)
    before = sampler.generate(asked(), PARAMS)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.mul_(1.3)
    after = sampler.generate(asked(), PARAMS)
    same(after, TransformersSampler(lm).generate(asked(), PARAMS))
    for place in (0, 1):
        assert [s.logprobs for s in before[place::2]] != [s.logprobs for s in after[place::2]]
    shipment = engine._shipments[id(lm)][1]
    shipped = shipment.shipped
    sampler.generate(asked(), PARAMS)
    assert shipment.shipped == shipped  # nothing had changed


def test_weights_travel_while_the_driver_goes_on_and_those_that_changed_meanwhile_are_sent_again(
    engine: Any, lm: CausalLM
) -> None:
    def scale(by: float) -> None:
        with torch.no_grad():
            for parameter in lm.model.parameters():
                parameter.mul_(by)

    sampler = engine.sampler(lm)
    sampler.generate(asked(), PARAMS)
    shipment = engine._shipments[id(lm)][1]
    sampler.release()
    assert shipment._leaving is None  # nothing had changed
    scale(1.1)
    sampler.release()
    assert shipment._leaving is not None
    same(sampler.generate(asked(), PARAMS), TransformersSampler(lm).generate(asked(), PARAMS))
    shipped = shipment.shipped
    for by in (1.1, 0.8):
        scale(by)
        sampler.release()
    same(sampler.generate(asked(), PARAMS), TransformersSampler(lm).generate(asked(), PARAMS))
    assert shipment.shipped == shipped + 2


def test_messages_that_are_taken_up_one_by_one_are_the_same(engine: Any, lm: CausalLM) -> None:
    sampler = engine.sampler(lm)
    assert isinstance(sampler, ContinuousSampler)
    requests, found = asked(8), dict[int, Sample]()
    sampler.begin(requests[:5], PARAMS)
    sampler.begin(requests[5:], PARAMS)
    until = time.monotonic() + 120
    while len(found) < 8 and time.monotonic() < until:
        found |= {request.key: sample for request, sample in sampler.advance()}
    same([found[i] for i in range(8)], TransformersSampler(lm).generate(requests, PARAMS))
    sampler.begin(requests, LONG)
    sampler.release()
    assert sampler.advance() == []
    same(sampler.generate(requests, PARAMS), [found[i] for i in range(8)])


def test_a_sampler_that_lets_go_of_its_episodes_leaves_anothers_alone(engine: Any, lm: CausalLM) -> None:
    """As where one plays ahead while the other's update ends."""
    one, two = engine.sampler(lm), engine.sampler(lm)
    one.generate(asked(), PARAMS)
    two.begin(asked(), LONG)
    one.release()
    found, until = dict[int, Sample](), time.monotonic() + 120
    while len(found) < 6 and time.monotonic() < until:
        found |= {request.key: sample for request, sample in two.advance()}
    same([found[i] for i in range(6)], TransformersSampler(lm).generate(asked(), LONG))


def test_an_actor_that_is_killed_while_it_samples_is_replaced_and_asked_again(engine: Any, lm: CausalLM) -> None:
    sampler = engine.sampler(lm)
    sampler.generate(asked(), PARAMS)
    lost()
    victim = pids(engine)[1]
    timer = threading.Timer(0.2, os.kill, (victim, signal.SIGKILL))
    timer.start()
    ours = sampler.generate(asked(), LONG)
    timer.join()
    same(ours, TransformersSampler(lm).generate(asked(), LONG))
    (line,) = lost()
    assert line.startswith("sampler 1 on ")
    assert "its process ended; replaced there after" in line
    assert victim not in pids(engine)


def test_an_adapter_plays_as_in_one_process_and_goes_there_alone(engine: Any, make_lm: Callable[[int], CausalLM]) -> None:
    needs("peft", "pip install 'agentdistill[lora]'")
    from agentdistill.cluster.model_parcel import bring, moving, pack, unpack

    lm = attach(make_lm(2), r=4, alpha=8, targets="all-linear", seed=0, base="x")
    there = unpack(pack(lm), moving(lm))
    with torch.no_grad():
        for tensor in lm.own().values():
            tensor.normal_(std=0.3)
    assert len(moving(lm)) == len(lm.own())
    bring(there, moving(lm))
    same(TransformersSampler(there).generate(asked(), PARAMS), TransformersSampler(lm).generate(asked(), PARAMS))
