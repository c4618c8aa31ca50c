"""Scoring by actors: what one process says, whole distributions with it, whoever is lost meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
import torch

from agentdistill.engines.registry import Setup
from agentdistill.errors import UserError
from agentdistill.policies.base import Request, SamplingParams, ScoreRequest, TeacherScores
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.scorer import TransformersScorer
from agentdistill.policies.served import served
from tests.needs import needs

needs("ray", "pip install 'agentdistill[ray]'")

SAID: list[str] = []


@pytest.fixture(scope="module")
def lm(make_lm: Callable[[int], CausalLM], tmp_path_factory: pytest.TempPathFactory) -> CausalLM:
    made, folder = make_lm(3), tmp_path_factory.mktemp("teacher")
    made.save(folder)
    made.name = str(folder)
    return made


@pytest.fixture(scope="module")
def engine(cluster: Any, setup_of: Callable[..., Setup]) -> Iterator[Any]:
    """Two actors of one teacher."""
    from agentdistill.cluster.engine import RayEngine

    made = RayEngine(setup_of(SAID, teachers=2))
    yield made
    made.close()


REQUESTS = [ScoreRequest([5 + i, *range(6, 20 + 3 * i)], range(2, 12 + i)) for i in range(7)]


def same(given: Sequence[TeacherScores], lm: CausalLM) -> None:
    for ours, theirs in zip(given, TransformersScorer(lm).score(REQUESTS), strict=True):
        assert ours.entropy is not None
        assert theirs.entropy is not None
        assert ours.distribution is not None
        assert theirs.distribution is not None
        torch.testing.assert_close(ours.logprobs, theirs.logprobs, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.entropy, theirs.entropy, atol=1e-5, rtol=0)
        rows = slice(0, len(ours.logprobs))
        torch.testing.assert_close(ours.distribution.logprobs(rows), theirs.distribution.logprobs(rows), atol=1e-5, rtol=0)


def test_two_actors_score_as_one_process_and_a_killed_one_is_replaced(engine: Any, lm: CausalLM) -> None:
    from agentdistill.cluster.connect import ray

    scorer = engine.scorer(lm)
    same(scorer.score(REQUESTS), lm)
    SAID.clear()
    os.kill(ray.get(scorer._troupe.crew._members[1].actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
    same(scorer.score(REQUESTS), lm)
    (line,) = SAID
    assert line.startswith("teacher 1 on ")
    assert "its process ended; replaced there" in line
    with pytest.raises(UserError, match="longer than the 512"):
        scorer.score([ScoreRequest([5] * 600, [3])])


def test_more_teachers_than_were_counted_find_no_place(engine: Any, lm: CausalLM, make_lm: Callable[[int], CausalLM]) -> None:
    engine.scorer(lm)
    with pytest.raises(UserError, match="no actor was reserved for teacher"):
        engine.scorer(make_lm(4))


def test_a_teacher_that_its_actor_loads_by_name_scores_and_plays_as_in_one_process(cluster: Any, lm: CausalLM) -> None:
    """The actor's side in this process, and the driver's over what it says."""
    from agentdistill.cluster.host import ModelHost
    from agentdistill.cluster.scorer import RayScorer

    host = ModelHost(1, 2048)

    class Here:
        """A crew of one, who is in this process."""

        def __len__(self) -> int:
            return 1

        def put(self, place: int, method: str, *arguments: Any) -> Any:
            return method, arguments

        def all(self, tickets: Any) -> list[Any]:
            return [asyncio.run(getattr(host, method)(*arguments)) for method, arguments in tickets]

    class One:
        crew = Here()

    asyncio.run(host.load(lm.name, None, 0))
    assert host._model.packed
    scorer = RayScorer(served(lm.name), cast(Any, One()), 2048)
    same(scorer.score(REQUESTS), lm)
    assert scorer._known is not None
    assert scorer._known is not lm.head  # it came with the first answer
    requests, params = [Request(i, [5, 6, 7 + i], i, frozenset({1})) for i in range(4)], SamplingParams(max_tokens=8)
    played = asyncio.run(host.sample(0, 1, 0, requests, params, ()))
    assert [each.ids for each in played] == [each.ids for each in TransformersSampler(lm).generate(requests, params)]


def test_train_packing_false_reaches_a_teacher_that_its_actor_loads_by_name(lm: CausalLM) -> None:
    from agentdistill.cluster.host import ModelHost

    host = ModelHost(1, 2048, padded=True)
    asyncio.run(host.load(lm.name, None, 0))
    assert not host._model.packed
