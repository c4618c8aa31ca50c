"""A Llama with heads of 16 and its export with heads of 32 are the same function."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from agentdistill.engines.heads import widen_heads
from agentdistill.policies.tiny import tiny_model


def test_wider_heads_say_the_same() -> None:
    small = tiny_model("64x2", 96, seed=3, context=64)
    config = small.config.to_dict()
    tensors = {name: tensor.detach() for name, tensor in small.named_parameters()}
    widen_heads(config, tensors)
    assert config["head_dim"] == 32
    wide = LlamaForCausalLM(LlamaConfig(**config))
    missing, unexpected = wide.load_state_dict(tensors, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    ids = torch.randint(0, 96, (2, 48), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = small(input_ids=ids).logits, wide(input_ids=ids).logits
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    assert ours.std() > 0.1


def test_heads_of_another_size_are_left_alone() -> None:
    config = {"model_type": "llama", "head_dim": 64}
    tensors = {"model.layers.0.self_attn.q_proj.weight": torch.ones(64, 8)}
    widen_heads(config, tensors)
    assert config["head_dim"] == 64
    assert tensors["model.layers.0.self_attn.q_proj.weight"].shape == (64, 8)
