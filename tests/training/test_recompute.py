"""Activation checkpointing: the same gradients, of fewer tensors that are kept."""

from __future__ import annotations

from collections.abc import Callable

import torch

from agentdistill.policies.model import CausalLM
from agentdistill.policies.varlen import NAME
from agentdistill.training.recompute import recomputing


def kept_and_gradients(lm: CausalLM, wanted: bool) -> tuple[int, list[torch.Tensor]]:
    """Bytes that a pass keeps for the way back, and what that gives."""
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    lm.model.zero_grad(set_to_none=True)
    ids = torch.arange(5, 69)[None] % lm.vocab_size
    with recomputing(lm.model, wanted):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            value = lm.hidden(ids).square().sum()
        value.backward()
    weights = sum(p.untyped_storage().nbytes() for p in lm.model.parameters())
    return sum(sizes.values()) - weights, [p.grad.clone() for p in lm.model.parameters() if p.grad is not None]


def test_gradients_are_the_same_and_less_is_kept(make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(0)
    plain, expected = kept_and_gradients(lm, False)
    least, got = kept_and_gradients(lm, True)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert least < plain / 3


def test_the_model_is_afterwards_as_it_was(make_lm: Callable[[int], CausalLM]) -> None:
    lm = make_lm(0)
    before = [dict(vars(module)) for module in lm.model.modules()]
    config = lm.model.config
    used = (config.use_cache, config._attn_implementation)
    with recomputing(lm.model):
        assert (config.use_cache, config._attn_implementation) == (False, NAME)
    assert [dict(vars(module)) for module in lm.model.modules()] == before
    assert (config.use_cache, config._attn_implementation) == used == (True, "sdpa")
