"""Norms and gates as one step of autograd: Transformers' answers and gradients, and only where the module says the same."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from agentdistill.policies.fused import FusedGatedMLP, FusedRMSNorm, _Gate, _Norm, fuse

SIZES = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
KINDS = {"llama": {}, "qwen2": {}, "qwen3": {"head_dim": 8}, "mistral": {}}
IDS = torch.tensor([[3, 7, 1, 9, 4, 4, 2]])


def made(kind: str, dtype: torch.dtype = torch.float64, **options: object) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **options), dtype=dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)  # norms' weights, too
    return model


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(input_ids=IDS).logits.square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def kinds(model: nn.Module) -> list[type]:
    return [type(module) for module in model.modules() if isinstance(module, FusedRMSNorm | FusedGatedMLP)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_models_logits_and_gradients_stay_what_they_were(kind: str, dtype: torch.dtype) -> None:
    model = made(kind, dtype, **KINDS[kind])
    logits, expected = model(input_ids=IDS).logits, gradients(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fuse(model)
    assert kinds(model).count(FusedRMSNorm) == (9 if kind == "qwen3" else 5)
    assert kinds(model).count(FusedGatedMLP) == 2
    torch.testing.assert_close(model(input_ids=IDS).logits, logits, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=IDS).logits, logits, rtol=1e-4, atol=1e-5)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(1, 6), st.floats(1e-8, 1e-2), st.integers(0, 999))
def test_gradients_are_those_of_finite_differences(tokens: int, width: int, eps: float, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(2, tokens, width, generator=rng, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(width, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: _Norm.apply(x, w, eps + 0.01), (x, weight))
    assert torch.autograd.gradcheck(_Gate.apply, (x, y))


@pytest.mark.parametrize("trained", ["x", "weight"])
def test_only_the_gradients_that_are_asked_for_are_there(trained: str) -> None:
    """As below an adapter, where a norm's weight is held still."""
    x, weight = torch.randn(3, 4, requires_grad=trained == "x"), torch.randn(4, requires_grad=trained == "weight")
    _Norm.apply(x, weight, 1e-6).sum().backward()
    assert (x.grad is not None) == (trained == "x")
    assert (weight.grad is not None) == (trained == "weight")


def test_in_bf16_a_norm_computes_in_fp32_as_transformers_does() -> None:
    norm = LlamaRMSNorm(64).to(torch.bfloat16)
    with torch.no_grad():
        norm.weight.add_(torch.randn(64).to(torch.bfloat16))
    states = torch.randn(5, 64).to(torch.bfloat16) * 30
    expected = norm(states)
    fuse(norm)
    assert type(norm) is FusedRMSNorm
    assert torch.equal(norm(states), expected)


def test_a_norm_that_adds_one_and_a_gate_with_another_activation_stay() -> None:
    plain = GemmaRMSNorm(8)
    plain.variance_epsilon = plain.eps  # by its parts it could be one
    other = made("llama", hidden_act="gelu")
    fuse(plain)
    fuse(other)
    assert type(plain) is GemmaRMSNorm
    assert FusedGatedMLP not in kinds(other)
    assert FusedRMSNorm in kinds(other)


def test_copies_and_pickles_compute_as_the_model_does() -> None:
    model = made("llama")
    fuse(model)
    expected = model(input_ids=IDS).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert kinds(other) == kinds(model)
        assert torch.equal(other(input_ids=IDS).logits, expected)


def test_less_is_kept_for_the_backward_pass() -> None:
    def kept(model: PreTrainedModel) -> int:
        held: dict[int, torch.Tensor] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(input_ids=IDS.repeat(1, 20)).logits.sum()
        return sum(tensor.untyped_storage().nbytes() for tensor in held.values())

    model = made("llama")
    before = kept(model)
    fuse(model)
    assert kept(model) < 0.9 * before
