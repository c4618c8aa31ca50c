"""Sizes that are counted without weights are those of real models."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM

from agentdistill.cost.shape import Shape, shape_of
from agentdistill.errors import UserError
from agentdistill.policies.fused import fuse
from agentdistill.policies.tiny import tiny_model


@pytest.fixture(scope="module")
def shape() -> Shape:
    return shape_of("tiny:64x3", vocabulary=300, context=256)


@pytest.fixture(scope="module")
def real() -> LlamaForCausalLM:
    model = tiny_model("64x3", 300, 0, 256)
    fuse(model)  # as where a model is loaded
    return model


def test_parameters_are_those_of_the_model_itself(shape: Shape, real: LlamaForCausalLM) -> None:
    assert shape.parameters == sum(each.numel() for each in real.parameters())
    assert shape.body == shape.parameters - real.get_input_embeddings().weight.numel()
    assert next(shape.model.parameters()).device.type == "meta"


def test_a_cache_keeps_a_key_and_a_value_of_every_layer(shape: Shape, real: LlamaForCausalLM) -> None:
    cache = real(input_ids=torch.ones(1, 5, dtype=torch.long), use_cache=True).past_key_values
    numbers = sum(each.numel() for layer in cache.layers for each in (layer.keys, layer.values))
    assert shape.cached_numbers * 5 == numbers


@pytest.mark.parametrize("length", [32, 128])
def test_what_is_saved_for_the_backward_pass_is_what_a_real_pass_saves(
    shape: Shape, real: LlamaForCausalLM, length: int
) -> None:
    own = {each.untyped_storage().data_ptr() for each in real.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        real.base_model(input_ids=torch.ones(4, length, dtype=torch.long))
    saved = sum(each.untyped_storage().nbytes() for each in kept.values()) / 4
    assert shape.saved_numbers * 4 * length == pytest.approx(saved, rel=0.1)


def test_operations_are_twice_the_weights_and_those_of_attention(shape: Shape) -> None:
    attention = 4 * shape.layers * shape.width  # queries by keys and weights by values, twice each, of every position
    assert shape.forward_flops(128) == pytest.approx(2 * shape.body + attention * 128, rel=0.02)


def test_fewer_layers_are_a_real_model(shape: Shape) -> None:
    cut = shape.cut(1)
    assert len(cut.base_model.layers) == 1
    assert cut.base_model.layers[0].mlp.up_proj.weight.shape == shape.model.base_model.layers[0].mlp.up_proj.weight.shape
    assert shape.layers == 3


@pytest.mark.parametrize(("name", "parameters"), [("x/Qwen3-1.7B", 1.7e9), ("x/Some-7B-Instruct", 7e9), ("x/m-600M", 6e8)])
def test_a_model_that_is_nowhere_is_guessed_from_its_name(name: str, parameters: float) -> None:
    found = shape_of(name)
    assert found.guessed
    assert found.parameters == pytest.approx(parameters, rel=0.1)


@pytest.mark.parametrize("ref", ["nobody/at-all", "./nowhere-7B", "tiny:65x2", "pip:no-such-7B"])
def test_a_reference_that_tells_no_size_is_refused(ref: str) -> None:
    with pytest.raises(UserError):
        shape_of(ref)
