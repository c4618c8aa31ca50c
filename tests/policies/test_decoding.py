"""Decoding by the short way says what the model's own pass says, and is not used where it does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from agentdistill.policies.base import Request, Sample, SamplingParams
from agentdistill.policies.decoding import DecodingBody
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.tiny import train_tokenizer

SHAPE = {
    "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 6,
    "max_position_embeddings": 256,
}  # fmt: skip


def build(config: Any, model: type[PreTrainedModel]) -> CausalLM:
    torch.manual_seed(0)
    built = model(config)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))  # of norms and biases too, which start at 1 and 0
    return CausalLM(built, train_tokenizer(["take the knife"], 300), "short")


def llama(**more: Any) -> CausalLM:
    return build(LlamaConfig(vocab_size=300, **{**SHAPE, "num_key_value_heads": 2, **more}), LlamaForCausalLM)


def qwen2() -> CausalLM:
    return build(Qwen2Config(vocab_size=300, **SHAPE, num_key_value_heads=3), Qwen2ForCausalLM)


def played(sampler: TransformersSampler) -> list[Sample]:
    """Two turns of five episodes of different lengths, of which some end early."""
    params, out = SamplingParams(max_tokens=20), []
    contexts = [list(range(5, 12 + 9 * k)) for k in range(5)]
    for turn in range(2):
        requests = [Request(k, ids, 10 * turn + k, frozenset(range(20 * k))) for k, ids in enumerate(contexts)]
        samples = sampler.generate(requests, params)
        contexts = [ids + sample.ids + [7, 8, 9] for ids, sample in zip(contexts, samples, strict=True)]
        out += samples
    return out


def by_the_model(lm: CausalLM) -> list[Sample]:
    sampler = TransformersSampler(lm)
    sampler._body = None
    return played(sampler)


def assert_same(ours: list[Sample], theirs: list[Sample]) -> None:
    assert [sample.ids for sample in ours] == [sample.ids for sample in theirs]
    assert [sample.logprobs for sample in ours] == [pytest.approx(sample.logprobs, abs=1e-4) for sample in theirs]


@pytest.mark.parametrize("make", [
    llama, lambda: llama(attention_bias=True, mlp_bias=True), lambda: llama(tie_word_embeddings=True),
    lambda: llama(num_key_value_heads=6), lambda: llama(head_dim=32), qwen2,
], ids=["grouped", "biases", "tied", "heads of their own", "wide heads", "qwen2"])  # fmt: skip
def test_the_short_way_gives_the_models_own_tokens_and_log_probs(make: Any) -> None:
    lm = make()
    sampler = TransformersSampler(lm)
    ours = played(sampler)
    assert sampler._body is not None
    assert len({len(sample.ids) for sample in ours}) > 2
    assert_same(ours, by_the_model(lm))


def test_a_model_that_says_something_else_is_decoded_by_its_own_pass() -> None:
    lm = llama()
    before = by_the_model(lm)
    lm.model.model.layers[1].mlp.register_forward_hook(lambda _module, _inputs, output: 3 * output)
    sampler = TransformersSampler(lm)
    ours = played(sampler)
    assert sampler._body is None
    assert_same(ours, by_the_model(lm))
    assert ours != before


def test_when_the_check_is_made_is_not_seen_in_what_is_sampled() -> None:
    """To the bit: a resumed run makes it where one that was never stopped had made it long before."""
    lm = llama()
    fresh, used = TransformersSampler(lm), TransformersSampler(lm)
    played(used)
    used.release()
    assert [(each.ids, each.logprobs) for each in played(fresh)] == [(each.ids, each.logprobs) for each in played(used)]


def test_an_update_in_place_is_followed() -> None:
    lm = llama()
    sampler = TransformersSampler(lm)
    before = played(sampler)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.mul_(1.1)
    sampler.release()
    after = played(sampler)
    assert_same(after, by_the_model(lm))
    assert after != before


def test_other_shapes_have_no_short_way() -> None:
    qwen3 = build(Qwen3Config(vocab_size=300, **SHAPE, num_key_value_heads=3, head_dim=16), Qwen3ForCausalLM)
    assert DecodingBody.of(qwen3.model) is None  # it has norms of queries and keys
    lm = llama()
    lm.model.model.layers[2].self_attn.v_proj = torch.nn.Sequential(lm.model.model.layers[2].self_attn.v_proj)
    assert DecodingBody.of(lm.model) is None  # as with an adapter around it
    assert DecodingBody.of(llama().model.to(torch.float64)) is None
