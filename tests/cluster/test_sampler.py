"""Sampling by actors: what one process says, whoever is lost meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from agentdistill.engines.registry import Setup
from agentdistill.policies.base import Request, Sample, SamplingParams
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from tests.needs import needs

needs("ray", "pip install 'agentdistill[ray]'")

PARAMS = SamplingParams(max_tokens=12)
Make = Callable[..., Setup]


@contextmanager
def opened(setup: Setup) -> Iterator[Any]:
    from agentdistill.cluster.engine import RayEngine

    engine = RayEngine(setup)
    try:
        yield engine
    finally:
        engine.close()


def asked(n: int = 6, turn: int = 0, longer: int = 0) -> list[Request]:
    return [Request(i, [5 + i, 7, *range(5, 20 + turn)] + [9] * longer, 100 * turn + i, frozenset({1})) for i in range(n)]


def same(ours: Sequence[Sample], theirs: Sequence[Sample]) -> None:
    assert [each.ids for each in ours] == [each.ids for each in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
        assert a.finish == b.finish


def pids(engine: Any) -> list[int]:
    """Of the sampler actors."""
    from agentdistill.cluster.connect import ray

    return ray.get([member.actor.__ray_call__.remote(lambda _: os.getpid()) for member in engine._playing[1].crew._members])


def test_two_actors_say_what_one_process_says(cluster: Any, setup_of: Make, make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(1)
    local = TransformersSampler(lm)
    with opened(setup_of(samplers=2)) as engine:
        sampler = engine.sampler(lm)
        for turn in range(3):
            same(sampler.generate(asked(turn=turn), PARAMS), local.generate(asked(turn=turn), PARAMS))
        sampler.release([0, 3])
        assert sum(len(pids(engine)) for _ in range(1)) == 2
