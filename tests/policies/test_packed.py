"""Decoding from packed weights and by grouped attention: the same numbers as the plain model, before and after an update."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentdistill.policies import decoding, packed
from agentdistill.policies.attention import grouped
from agentdistill.policies.base import Request, SamplingParams
from agentdistill.policies.local import TransformersSampler
from agentdistill.policies.model import CausalLM
from agentdistill.policies.packed import PackedLinears
from agentdistill.policies.tiny import train_tokenizer

PARAMS = SamplingParams(temperature=0, max_tokens=24)


@pytest.fixture
def lm() -> CausalLM:
    tokenizer = train_tokenizer(["take the knife"], 300)
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "max_position_embeddings": 256}
    config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=8, num_key_value_heads=2, attention_bias=True, **shape)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return CausalLM(model, tokenizer, "grouped")


def generate(sampler: TransformersSampler) -> list[list[float]]:
    requests = [Request(k, list(range(5, 20 + 7 * k)), k, frozenset()) for k in range(5)]
    return [sample.logprobs for sample in sampler.generate(requests, PARAMS)]


def plain(lm: CausalLM, monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    with monkeypatch.context() as patch:
        patch.setattr(packed, "ROWS", range(0))
        return generate(TransformersSampler(lm))


def test_packed_weights_give_the_plain_ones_log_probs_and_an_update_is_followed(
    lm: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, used = TransformersSampler(lm), list[int]()
    forward = packed.packed_forward

    def counted(layers: Sequence[torch.nn.Linear], rows: int | None = None) -> object:
        used.append(len(layers))
        return forward(layers, rows)

    monkeypatch.setattr(packed, "packed_forward", counted)
    monkeypatch.setattr(decoding, "packed_forward", counted)
    assert generate(sampler) == [pytest.approx(each, abs=1e-4) for each in plain(lm, monkeypatch)]
    assert sorted(used) == sorted(2 * [3, 1, 2, 1] + [1])  # a layer's queries, keys and values are one product; and the head
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.mul_(1.1)
    before = generate(sampler)
    sampler.release()
    assert (after := generate(sampler)) == [pytest.approx(each, abs=1e-4) for each in plain(lm, monkeypatch)]
    assert after != [pytest.approx(each, abs=1e-4) for each in before]  # without a release the old weights are multiplied


def test_outside_its_context_the_model_computes_and_learns_as_ever(lm: CausalLM) -> None:
    linears, ids = PackedLinears(lm.model.modules()), torch.arange(5, 25)[None]
    expected = lm.hidden(ids)
    with torch.no_grad():
        for _ in range(packed.STEPS + 2):
            with linears.active(4):
                inside = lm.hidden(ids.expand(4, -1))
    torch.testing.assert_close(inside[0], expected[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(lm.hidden(ids), expected)
    lm.logits(lm.hidden(ids)).sum().backward()
    assert lm.model.model.layers[0].mlp.up_proj.weight.grad is not None


def test_an_error_inside_leaves_no_packed_layer_behind(lm: CausalLM) -> None:
    linears = PackedLinears(lm.model.modules())
    for _ in range(packed.STEPS):
        with linears.active(4):
            pass
    with pytest.raises(IndexError), linears.active(4):
        lm.hidden(torch.tensor([[lm.vocab_size]]))
    assert not any("forward" in vars(layer) for layer in lm.model.modules())


def test_grouped_attention_equals_transformers_own_under_a_ragged_mask(lm: CausalLM) -> None:
    ids = torch.arange(5, 17).expand(3, -1)
    mask = torch.ones(12, 12, dtype=torch.bool).tril().repeat(3, 1, 1, 1)
    mask[1, :, 4:, :2] = False
    with torch.no_grad():
        expected = lm.hidden(ids, attention_mask=mask)
        with grouped(lm.model):
            assert lm.model.config._attn_implementation != "sdpa"
            torch.testing.assert_close(lm.hidden(ids, attention_mask=mask), expected, atol=1e-5, rtol=1e-5)
    assert lm.model.config._attn_implementation == "sdpa"
